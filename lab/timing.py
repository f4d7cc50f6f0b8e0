"""A model's positions beside their own copies at other times: the gate's test of timing, on bars that are compared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from signalserve.judging import shifted_means, timing_of
from signalserve.lab.histogram import histogram


@dataclass(frozen=True)
class TimingDistribution:
    """The mean gains per bar of a model's positions, shifted round the bars by every number of bars.

    Gains are from close to close and before costs, which all copies share; the gate's are from open to close.
    `edges` has one more number than `counts`, and `counts` sum to one less than `bars`. `observed` is the model's own
    mean gain, `shifted_mean` that of its copies, `probability` that the timing is skill; `low` and `high` hold 90 % of
    the copies.
    """

    model_id: str
    bars: int
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    observed: float
    shifted_mean: float
    probability: float
    low: float
    high: float


def timing_distribution(
    model_id: str, position: NDArray[np.float64], close: NDArray[np.float64]
) -> TimingDistribution:
    """Shift positions of -1, 0 or 1, held over each bar, against the closes: both float64 [n], n at least 2."""
    # without opens a bar's gain is that since the close before; the first has none
    before = np.concatenate((close[:1], close[:-1]))
    means = shifted_means(position, before, close)
    found = timing_of(means)
    edges, counts = histogram(means[1:])
    return TimingDistribution(
        model_id=model_id,
        bars=means.size,
        edges=edges,
        counts=counts,
        observed=found.mean,
        shifted_mean=found.shifted_mean,
        probability=found.probability,
        low=found.low,
        high=found.high,
    )
