"""How much of a Sharpe ratio luck explains.

All ratios are per bar, not annualised. The moments of the returns are enough for every figure here, so the log
can keep them, and the ratio can be deflated again when more has been tried.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

_NORMAL = NormalDist()


@dataclass(frozen=True)
class ReturnMoments:
    """What n per-bar returns look like: mean / std(ddof=1), skewness, and the (not excess) kurtosis."""

    n: int
    sharpe: float
    skewness: float
    kurtosis: float

    @property
    def sharpe_se(self) -> float | None:
        """Standard error of the ratio (Lo, 2002; Mertens, 2002), per bar as the ratio is.

            sqrt((1 - skew * SR + (kurt - 1) / 4 * SR^2) / (n - 1))

        Returns that depend on those before make it larger. None where the moments are no series'.
        """
        shape = 1.0 - self.skewness * self.sharpe + (self.kurtosis - 1.0) / 4.0 * self.sharpe**2
        return None if shape <= 0.0 or self.n < 2 else math.sqrt(shape / (self.n - 1))

    def annualised_error(self, annualised: float) -> float | None:
        """The standard error of this ratio where it is written annualised, on that scale; None for a ratio of 0."""
        error = self.sharpe_se
        return None if error is None or self.sharpe == 0.0 else error * annualised / self.sharpe

    def probabilistic_sharpe(self, benchmark: float = 0.0) -> float | None:
        """P(true Sharpe ratio > benchmark) (Bailey & Lopez de Prado, 2012, eq. 11).

            PSR = Phi((SR - benchmark) / standard error)

        None where the moments are no series'.
        """
        error = self.sharpe_se
        return None if error is None else _NORMAL.cdf((self.sharpe - benchmark) / error)


def expected_max_sharpe(trials: int, variance: float) -> float:
    """The best Sharpe ratio that `trials` without skill would show (Bailey & Lopez de Prado, 2014, eq. 1).

        sqrt(V) * ((1 - g) * Phi^-1(1 - 1/N) + g * Phi^-1(1 - 1/(N e))),  g = 0.5772..., 0 for one trial

    `variance` is that of the trials' Sharpe ratios; the answer has their unit.
    """
    if trials <= 1:
        return 0.0
    first = _NORMAL.inv_cdf(1.0 - 1.0 / trials)
    second = _NORMAL.inv_cdf(1.0 - 1.0 / (trials * math.e))
    return math.sqrt(variance) * ((1.0 - np.euler_gamma) * first + np.euler_gamma * second)


def luck(n: int, tries: int) -> float:
    """The Sharpe ratio that the best of so many looks at n bars would show without skill: of variance 1 / (n - 1)."""
    return expected_max_sharpe(tries, 1.0 / (n - 1))
