"""Metrics of a regressor's values: v is what it expected of a bar, r what came, close[t + h] / close[t] - 1.

- rank_ic: Spearman's rank correlation of v and r; None where one of them does not vary
- sign_accuracy: share of the bars on which v and r have one sign, of those with r other than zero
- value_bars: bars that have both

The horizon h is the label's where that is ours, else one bar. None of them knows a threshold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from signalserve.trading.metrics import Metrics

Array = NDArray[np.float64]


def realised_returns(close: Array, label: Mapping[str, Any] | None) -> Array:
    """What came of every bar, r, float64 [n]; NaN in the last h, whose future is not there yet."""
    given = (label or {}).get("horizon_bars")
    horizon = given if isinstance(given, int) and given > 0 else 1
    realised = np.full(close.size, np.nan)
    realised[:-horizon] = close[horizon:] / close[:-horizon] - 1.0
    return realised


def value_metrics(values: Array, realised: Array) -> Metrics:
    """Metrics of n bars, both arrays float64 [n], NaN where there is none."""
    known = np.isfinite(values) & np.isfinite(realised)
    expected, came = values[known], realised[known]
    moved = came != 0.0
    return {
        "rank_ic": _rank_correlation(expected, came),
        "sign_accuracy": float((np.sign(expected) == np.sign(came))[moved].mean()) if moved.any() else None,
        "value_bars": int(known.sum()),
    }


def _rank_correlation(first: Array, second: Array) -> float | None:
    if first.size < 2 or np.ptp(first) == 0.0 or np.ptp(second) == 0.0:
        return None
    return float(np.corrcoef(rankdata(first), rankdata(second))[0, 1])
