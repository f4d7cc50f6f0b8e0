"""Labels: what a bar turned out to be.

`fixed_horizon`: with r = close[t + h] / close[t] - 1, bar t is

- 1 where r >= up_threshold,
- 0 where r <= down_threshold (with equal thresholds, `up` wins a tie),
- without a class (NaN) between the two: such bars are left out of the fit and of the classification metrics,
  because a move smaller than the costs says nothing; the simulated strategy does pass through them,
- without a label (NaN) in the last h bars, whose future is not there yet.

The horizon counts bars, so across a gap in the data it spans more time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Labels:
    """Labels of n bars: `classes` is 0.0, 1.0 or NaN; `forward_return` is r, NaN in the last `horizon` bars."""

    classes: NDArray[np.float64]
    forward_return: NDArray[np.float64]
    horizon: int

    @property
    def known(self) -> NDArray[np.bool_]:
        """Bars that have a class."""
        return np.isfinite(self.classes)


def fixed_horizon(
    close: NDArray[np.float64], *, horizon_bars: int, up_threshold: float, down_threshold: float
) -> Labels:
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
    if horizon_bars < 1:
        raise ValueError(f"horizon_bars is {horizon_bars}; it must be at least 1")
    if down_threshold > up_threshold:
        raise ValueError("down_threshold must not be above up_threshold")
    forward = np.full(close.shape[0], np.nan)
    if close.shape[0] > horizon_bars:
        forward[:-horizon_bars] = close[horizon_bars:] / close[:-horizon_bars] - 1.0
    classes = np.full(close.shape[0], np.nan)
    classes[forward <= down_threshold] = 0.0
    classes[forward >= up_threshold] = 1.0
    return Labels(classes, forward, horizon_bars)
