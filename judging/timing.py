"""Whether a model's positions came at the right time, or a market that rose would have paid anybody.

The positions are shifted round the window, by every number of bars: each copy is in the market as often, as long and
as many times, at the same costs, and knows nothing of the bars that it meets. Where the signals have no skill, the
model's own gain is one of these gains, each as likely as any other, whichever way the market went: a permutation test
(Fisher, 1935) whose permutations are the circular shifts, which keep the dependence between neighbouring bars
(Politis & Romano, 1992, for the circle).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Timing:
    """A model's gain beside those of its shifted copies: means per bar, before costs, which are the same for all.

    `probability` is 1 - p of the test: the share of copies that gained less, of equal ones the half. `low` and `high`
    bound 90 % of the copies' means.
    """

    probability: float
    mean: float
    shifted_mean: float
    low: float
    high: float


def timing(position: Array, open_: Array, close: Array) -> Timing:
    """Hold positions against their copies.

    `position` is -1, 0 or 1, held from each bar's open to its close; all are float64 [n], n >= 2.

    >>> timing(np.array([0.0, 1.0, 0.0, 0.0]), np.array([1.0, 1.0, 2.0, 2.0]),
    ...        np.array([1.0, 2.0, 2.0, 2.0])).probability
    0.75
    """
    return timing_of(shifted_means(position, open_, close))


def timing_of(means: Array) -> Timing:
    """The test itself, of what `shifted_means` gives: float64 [n], n >= 2, the model's own gain first."""
    own, others = means[0], means[1:]
    equal = np.isclose(others, own, rtol=0.0, atol=1e-12)  # a spectrum's last digits
    above = float(((others > own) & ~equal).sum() + 0.5 * equal.sum())
    low, high = np.quantile(others, (0.05, 0.95))
    return Timing(
        probability=1.0 - (1.0 + above) / means.size,
        mean=float(own),
        shifted_mean=float(others.mean()),
        low=float(low),
        high=float(high),
    )


def shifted_means(position: Array, open_: Array, close: Array) -> Array:
    """Mean gain per bar of the positions shifted by 0, 1 ... n - 1 bars, float64 [n].

    What is held over a bar's open is held on from the close before. Each is a sum of products over the circle, so all
    of them are two products of spectra.
    """
    n = position.size
    over_bar = close / open_ - 1.0
    over_open = np.concatenate(([0.0], open_[1:] / close[:-1] - 1.0))
    spectrum = np.conj(np.fft.rfft(position))
    before = np.conj(np.fft.rfft(np.roll(position, 1)))
    gains = np.fft.irfft(np.fft.rfft(over_bar) * spectrum + np.fft.rfft(over_open) * before, n)
    return np.asarray(gains / n, dtype=np.float64)
