"""Labels: what a bar turned out to be.

`fixed_horizon`: with r = close[t + h] / close[t] - 1, bar t is

- 1 where r >= up_threshold,
- 0 where r <= down_threshold (with equal thresholds, `up` wins a tie),
- without a class (NaN) between the two: such bars are left out of the fit and of the classification metrics,
  because a move smaller than the costs says nothing; the simulated strategy does pass through them,
- without a label (NaN) in the last h bars, whose future is not there yet.

`triple_barrier` (Lopez de Prado, Advances in Financial Machine Learning, 2018, section 3.4): a position entered
at close[t] meets one barrier above, one below, and a vertical one after h bars; bar t is

- 1 where a high of bars t+1 ... t+h reaches the upper barrier before any low reaches the lower one,
- 0 where the lower one is reached first, or both within one bar: a bar does not tell which came first, and the
  stop before the target is what a long position must fear,
- without a class (NaN) where neither is reached,
- among the last h bars labelled only where a barrier was reached already: no later bar can change that.

The barriers stand at close[t] * (1 + threshold). With `volatility_bars` = v the thresholds are multiples of
sigma[t], the standard deviation (ddof=1) of the v simple returns that end with bar t; it is a volatility per
bar, not scaled to the horizon. Where it is not known yet, or zero, there is no label.

Horizons count bars, so across a gap in the data they span more time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from signalserve.features.bars import Bars

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Labels:
    """Labels of n bars.

    `classes` is 0.0, 1.0 or NaN. `forward_return` is the return that the label speaks of: r, or that of the
    barrier reached, or of the horizon's end; NaN where there is no label. `end` (intp [n]) is the position of
    the last bar whose prices the label has read, at most n - 1: a fit that must not see bar s takes bars with
    `end` below s.
    """

    classes: Array
    forward_return: Array
    horizon: int
    end: NDArray[np.intp]

    @property
    def known(self) -> NDArray[np.bool_]:
        """Bars that have a class."""
        return np.isfinite(self.classes)


class LabelRule(Protocol):
    """How a bar gets its class: the `ml.label` section of the configuration, or what has attributes of these names.

    `method` is fixed_horizon or triple_barrier; `volatility_bars` None takes the thresholds as they are.
    """

    @property
    def method(self) -> str: ...  # noqa: D102 - the class says what they are
    @property
    def horizon_bars(self) -> int: ...  # noqa: D102
    @property
    def up_threshold(self) -> float: ...  # noqa: D102
    @property
    def down_threshold(self) -> float: ...  # noqa: D102
    @property
    def volatility_bars(self) -> int | None: ...  # noqa: D102


def make_labels(bars: Bars, label: LabelRule) -> Labels:
    """Label bars by a rule."""
    frame = bars.frame
    close = frame["close"].to_numpy()
    if label.method == "fixed_horizon":
        return fixed_horizon(
            close,
            horizon_bars=label.horizon_bars,
            up_threshold=label.up_threshold,
            down_threshold=label.down_threshold,
        )
    scale = None if label.volatility_bars is None else volatility(close, label.volatility_bars)
    return triple_barrier(
        frame["high"].to_numpy(),
        frame["low"].to_numpy(),
        close,
        horizon_bars=label.horizon_bars,
        up_threshold=label.up_threshold,
        down_threshold=label.down_threshold,
        scale=scale,
    )


def fixed_horizon(close: Array, *, horizon_bars: int, up_threshold: float, down_threshold: float) -> Labels:
    """Label every bar by its return over `horizon_bars` bars.

    Args:
        close: closing prices, float64 [n], above zero.
        horizon_bars: h, at least 1.
        up_threshold: a return, such as 0.002.
        down_threshold: a return, not above `up_threshold`.

    >>> fixed_horizon(np.array([1.0, 1.1, 1.1, 0.9]), horizon_bars=1, up_threshold=0.05,
    ...               down_threshold=-0.05).classes
    array([ 1., nan,  0., nan])
    """
    _check_horizon(horizon_bars)
    if down_threshold > up_threshold:
        raise ValueError("down_threshold must not be above up_threshold")
    n = close.shape[0]
    forward = np.full(n, np.nan)
    if n > horizon_bars:
        forward[:-horizon_bars] = close[horizon_bars:] / close[:-horizon_bars] - 1.0
    classes = np.full(n, np.nan)
    classes[forward <= down_threshold] = 0.0
    classes[forward >= up_threshold] = 1.0
    return Labels(classes, forward, horizon_bars, _full_end(n, horizon_bars))


def triple_barrier(
    high: Array,
    low: Array,
    close: Array,
    *,
    horizon_bars: int,
    up_threshold: float,
    down_threshold: float,
    scale: Array | None = None,
) -> Labels:
    """Label every bar by the barrier that is reached first.

    Args:
        high: highest prices, float64 [n].
        low: lowest prices, float64 [n].
        close: closing prices, float64 [n], above zero.
        horizon_bars: h, at least 1.
        up_threshold: above 0; a return, or a multiple of `scale`.
        down_threshold: below 0, likewise.
        scale: float64 [n]; bars where it is not above zero get no label. None: 1 everywhere.

    >>> triple_barrier(np.array([10.0, 10.2, 12.0]), np.array([9.0, 9.9, 10.0]), np.array([10.0, 10.1, 11.9]),
    ...                horizon_bars=2, up_threshold=0.1, down_threshold=-0.1).classes
    array([ 1.,  1., nan])
    """
    _check_horizon(horizon_bars)
    if not down_threshold < 0.0 < up_threshold:
        raise ValueError("triple_barrier needs down_threshold below 0 and up_threshold above 0")
    n = close.shape[0]
    unit = np.ones(n) if scale is None else scale
    usable = np.isfinite(unit) & (unit > 0.0)
    upper, lower = close * (1.0 + up_threshold * unit), close * (1.0 + down_threshold * unit)
    classes, forward = np.full(n, np.nan), np.full(n, np.nan)
    end = _full_end(n, horizon_bars)
    waiting = np.flatnonzero(usable)
    # one pass a bar of the horizon, over those bars alone that have not reached a barrier yet
    for step in range(1, horizon_bars + 1):
        waiting = waiting[waiting + step < n]
        if waiting.size == 0:
            break
        seen = waiting + step
        down = low[seen] <= lower[waiting]
        touched = down | (high[seen] >= upper[waiting])
        hit, fell = waiting[touched], down[touched]
        classes[hit] = np.where(fell, 0.0, 1.0)
        forward[hit] = np.where(fell, down_threshold, up_threshold) * unit[hit]
        end[hit] = hit + step
        waiting = waiting[~touched]
    through = waiting[waiting + horizon_bars < n]
    forward[through] = close[through + horizon_bars] / close[through] - 1.0
    return Labels(classes, forward, horizon_bars, end)


def volatility(close: Array, bars: int) -> Array:
    """Standard deviation (ddof=1) of the last `bars` simple returns, float64 [n]; NaN in the first `bars`."""
    returns = pd.Series(close).pct_change(fill_method=None)
    return np.asarray(returns.rolling(bars).std().to_numpy(), dtype=np.float64)


def _check_horizon(horizon_bars: int) -> None:
    if horizon_bars < 1:
        raise ValueError(f"horizon_bars is {horizon_bars}; it must be at least 1")


def _full_end(n: int, horizon_bars: int) -> NDArray[np.intp]:
    """The end of the horizon, or of the bars."""
    return np.minimum(np.arange(n, dtype=np.intp) + horizon_bars, max(n - 1, 0))
