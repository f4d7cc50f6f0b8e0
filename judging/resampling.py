"""The stationary block bootstrap of a paired difference: whether the challenger is better, or was lucky.

Politis & Romano (1994): blocks of geometric length, so that a resample keeps the dependence between
neighbouring bars. The mean length is that of Politis & White (2004), corrected by Patton, Politis & White
(2009), as `arch` estimates it, and at least 1.

P(better) is the share of resamples whose mean difference is above zero; one of exactly zero counts half, so
that two identical models get 0.5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Resamples:
    """The means of a difference's resamples, float64 [resamples]; `block_bars` is the mean length of their blocks."""

    means: NDArray[np.float64]
    block_bars: float


@dataclass(frozen=True)
class Resampling:
    """What the resamples say of a difference per bar; `low` and `high` bound 90 % of their means."""

    probability: float
    mean: float
    low: float
    high: float
    block_bars: float
    resamples: int


def probability_better(
    difference: NDArray[np.float64],
    *,
    resamples: int = 2_000,
    block_bars: float | None = None,
    seed: int = 42,
) -> Resampling:
    """What the resamples of a difference in per-bar returns say, challenger minus champion; as `resample`."""
    return summary_of(difference, resample(difference, resamples=resamples, block_bars=block_bars, seed=seed))


def resample(
    difference: NDArray[np.float64],
    *,
    resamples: int = 2_000,
    block_bars: float | None = None,
    seed: int = 42,
) -> Resamples:
    """Resample a difference in per-bar returns, float64 [n].

    Args:
        difference: n >= 2 finite numbers.
        resamples: how many.
        block_bars: mean length of a block; None estimates it.
        seed: one seed gives one answer.
    """
    if difference.size < 2 or not np.isfinite(difference).all():
        raise ValueError(f"the difference must be at least 2 finite numbers, not {difference.size} bars")
    from arch.bootstrap import (
        StationaryBootstrap,
    )  # takes seconds, which who has no champion need not wait for

    length = _block_length(difference) if block_bars is None else max(1.0, block_bars)
    resampler = StationaryBootstrap(length, difference, seed=np.random.default_rng(seed))
    means = np.array([data[0][0].mean() for data in resampler.bootstrap(resamples)])
    return Resamples(means, length)


def summary_of(difference: NDArray[np.float64], resampled: Resamples) -> Resampling:
    """The share of resamples that are above zero, and the range that holds most of them."""
    means = resampled.means
    low, high = np.quantile(means, (0.05, 0.95))
    return Resampling(
        probability=float((means > 0.0).mean() + 0.5 * (means == 0.0).mean()),
        mean=float(difference.mean()),
        low=float(low),
        high=float(high),
        block_bars=resampled.block_bars,
        resamples=means.size,
    )


def _block_length(difference: NDArray[np.float64]) -> float:
    if np.ptp(difference) == 0.0:
        return 1.0  # a constant has no dependence to estimate
    from arch.bootstrap import optimal_block_length

    estimate = float(optimal_block_length(difference)["stationary"].iloc[0])
    if not math.isfinite(estimate):
        return 1.0
    # a block as long as the series would resample nothing
    return float(min(max(1.0, estimate), max(1.0, difference.size / 3)))
