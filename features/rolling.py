"""Statistics over a finite window of bars, each computed from its own window alone.

A running sum carries the rounding of everything that it has ever seen, so its value depends on where the
history starts, and the variance from running sums of squares loses digits where it matters. Here every window
is summed afresh: the result at bar t is the same to the last bit whatever came before the window.

All functions take float64 [n] and return float64 [n], NaN in the first `window - 1` places.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Array = NDArray[np.float64]

FLAT = 1e-8
"""A spread of at most this share of its level is no movement: below it rounding would decide the value."""

_CELLS_AT_ONCE = 1 << 20


def rolling(values: Array, window: int, reduce: Callable[[Array], Array]) -> Array:
    """Apply `reduce` ([m, window] -> [m]) to every full window, a bounded number of rows at a time."""
    result = np.full(values.shape[0], np.nan)
    if values.shape[0] < window:
        return result
    windows = sliding_window_view(values, window)
    rows = max(1, _CELLS_AT_ONCE // window)
    for start in range(0, windows.shape[0], rows):
        # a copy has the same memory layout wherever the window stands, and so the same order of additions
        block = np.ascontiguousarray(windows[start : start + rows])
        result[window - 1 + start : window - 1 + start + block.shape[0]] = reduce(block)
    return result


def rolling_mean(values: Array, window: int) -> Array:
    """Mean of each window."""
    return rolling(values, window, lambda block: block.mean(axis=1))


def rolling_sum(values: Array, window: int) -> Array:
    """Sum of each window."""
    return rolling(values, window, lambda block: block.sum(axis=1))


def rolling_std(values: Array, window: int) -> Array:
    """Population standard deviation of each window, in two passes."""
    return rolling(values, window, lambda block: block.std(axis=1))


def rolling_zscore(values: Array, window: int) -> Array:
    """How many standard deviations the last value of a window is from the window's mean.

    0 where the window is flat. Never beyond `sqrt(window - 1)` either way.
    """

    def score(block: Array) -> Array:
        largest, smallest = block.max(axis=1), block.min(axis=1)
        flat = largest - smallest <= FLAT * np.maximum(np.abs(largest), np.abs(smallest))
        return ratio(block[:, -1] - block.mean(axis=1), block.std(axis=1), valid=~flat)

    return rolling(values, window, score)


def rolling_skew(values: Array, window: int) -> Array:
    """Population skewness of each window; 0 where its spread is at most `FLAT` (values are returns)."""

    def skew(block: Array) -> Array:
        centred = block - block.mean(axis=1, keepdims=True)
        spread = block.std(axis=1)
        return ratio((centred**3).mean(axis=1), spread**3, valid=spread > FLAT)

    return rolling(values, window, skew)


def rolling_autocorrelation(values: Array, window: int) -> Array:
    """Correlation of neighbours within each window; 0 where its spread is at most `FLAT`."""

    def correlate(block: Array) -> Array:
        centred = block - block.mean(axis=1, keepdims=True)
        spread = block.std(axis=1)
        return ratio((centred[:, 1:] * centred[:, :-1]).mean(axis=1), spread**2, valid=spread > FLAT)

    return rolling(values, window, correlate)


def lag(values: Array, bars: int) -> Array:
    """The value `bars` bars ago; NaN in the first `bars` places."""
    result = np.full(values.shape[0], np.nan)
    if bars < values.shape[0]:
        result[bars:] = values[: values.shape[0] - bars]
    return result


def ratio(numerator: Array, denominator: Array, *, valid: NDArray[np.bool_], otherwise: float = 0.0) -> Array:
    """`numerator / denominator` where `valid`, else `otherwise`; NaN stays NaN (warm-up)."""
    result = np.full(np.shape(numerator), otherwise)
    np.divide(numerator, denominator, out=result, where=valid)
    unknown = np.isnan(numerator) | np.isnan(denominator)
    result[unknown] = np.nan
    return result
