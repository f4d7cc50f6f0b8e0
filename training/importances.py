"""How much each feature counts in a fitted model, on one scale for every model type: shares that sum to 1."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.inspection import permutation_importance

_SAMPLE_ROWS = 1000


def feature_importances(
    model: Any,
    names: Sequence[str],
    rows: NDArray[np.float64],
    classes: NDArray[np.float64],
    *,
    seed: int,
) -> dict[str, float]:
    """Name -> share, largest first.

    Trees: their own importances (impurity, for xgboost gain). Linear models: |coefficient| on scaled features.
    Calibrated models: the mean over their estimators. Anything else: the loss of log-likelihood when a column
    is shuffled, on the newest 1,000 of `rows` [n, k] with `classes` [n].
    """
    raw = _own(model)
    if raw is None:
        shuffled = permutation_importance(
            model,
            rows[-_SAMPLE_ROWS:],
            classes[-_SAMPLE_ROWS:],
            scoring="neg_log_loss",
            n_repeats=2,
            random_state=seed,
        )
        raw = np.asarray(shuffled.importances_mean)
    weight = np.clip(np.nan_to_num(raw.astype(np.float64)), 0.0, None)
    total = float(weight.sum())
    shares = weight / total if total > 0.0 else weight
    order = np.argsort(-shares, kind="stable")
    return {names[place]: float(shares[place]) for place in map(int, order)}


def write_importances(path: Path, importances: dict[str, float]) -> None:
    """Write `feature,importance`, in the order given."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["feature", "importance"])
        writer.writerows((name, repr(share)) for name, share in importances.items())


def _own(model: Any) -> NDArray[np.float64] | None:
    """What the model itself knows; None where it knows nothing."""
    if hasattr(model, "calibrated_classifiers_"):
        parts = [_own(calibrated.estimator) for calibrated in model.calibrated_classifiers_]
        known = [part for part in parts if part is not None]
        return np.mean(known, axis=0) if known else None
    if hasattr(model, "steps"):
        return _own(model.steps[-1][1])
    if hasattr(model, "coef_"):
        return np.abs(np.asarray(model.coef_, dtype=np.float64)).reshape(-1)
    own = getattr(model, "feature_importances_", None)
    return None if own is None else np.asarray(own, dtype=np.float64)
