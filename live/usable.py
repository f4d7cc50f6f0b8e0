"""Whether an answer may be traded on."""

from __future__ import annotations

import math
from collections.abc import Collection

from signalserve.client import Prediction


def why_unusable(prediction: Prediction, feature_set: str = "") -> str:
    """Why the answer gives its bar no score, whichever server it came from; "" where it gives one.

    A bar has one row, so that its answer has one score, and a score that is no finite number would go through the
    strategy's comparisons unseen. `feature_set`: the definition that computed the row; a model of another one was
    fed what it does not know, whatever the names say. A server or a model that says none is believed.
    """
    model = prediction.model_id
    if len(prediction.scores) != 1:
        return f"{model} answered {len(prediction.scores)} scores to one row"
    score = prediction.score
    if not math.isfinite(score):
        return f"{model} answered {score}, which is no score"
    if feature_set and prediction.feature_set and prediction.feature_set != feature_set:
        return f"{model} was trained on {prediction.feature_set}, and this engine computes {feature_set}"
    return ""


def why_held(prediction: Prediction, hold_on: Collection[str]) -> str:
    """Why a usable answer is not traded on: the flags of it that are in `hold_on`; "" where none is."""
    flags = [flag for flag in prediction.flags if flag in hold_on]
    return f"flagged {', '.join(flags)} (score {prediction.score:.4f})" if flags else ""
