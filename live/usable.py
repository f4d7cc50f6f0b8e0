"""Whether an answer may be traded on."""

from __future__ import annotations

import math

from signalserve.client import Prediction


def why_unusable(prediction: Prediction) -> str:
    """Why the answer gives its bar no score, whichever server it came from; "" where it gives one.

    A bar has one row, so that its answer has one score, and a score that is no finite number would go through the
    strategy's comparisons unseen.
    """
    if len(prediction.scores) != 1:
        return f"{prediction.model_id} answered {len(prediction.scores)} scores to one row"
    score = prediction.score
    return "" if math.isfinite(score) else f"{prediction.model_id} answered {score}, which is no score"
