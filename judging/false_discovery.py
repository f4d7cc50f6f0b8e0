"""How many of a batch of models may go into production, where a larger batch has more that were lucky.

Of m models without skill each passes at a level of 10 % with a chance of 10 %, so a batch of many keys always has some
that pass. Benjamini & Hochberg (1995, J. R. Statist. Soc. B 57, procedure (1)): with the p's in order, those up to the
largest rank i whose p is at most i / m times the level are let in. Of what is let in at most that share is luck on
average, where the p's are independent or rise and fall together (Benjamini & Yekutieli, 2001), as those of markets do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from signalserve.judging.evidence import Evidence


@dataclass(frozen=True)
class Ranked:
    """One p of a batch of `of`: its `rank` from 1 on (of equal ones the last), what it was held against, the answer."""

    p: float
    rank: int
    of: int
    bound: float
    allowed: bool

    @property
    def text(self) -> str:
        """The numbers in words."""
        return (
            f"p {self.p:.4g}, rank {self.rank} of the {self.of} models that the batch has measured, bound "
            f"{self.bound:.4g} (Benjamini-Hochberg)"
        )


def chance(evidence: Evidence, tries: int) -> float:
    """How often a model without skill would do as well, its p; at most 1.

    It is the largest 1 - P of what the gate asks `min_probability` of: all of that must pass at once, so the largest is
    a p of its own (Berger, 1982). It counts times the looks, as in `judging.gate.asked_after`.
    """
    found = [evidence.challenger.timing]
    if evidence.champion is not None:
        found.append(evidence.probability_better)
    least = min(0.0 if probability is None else probability for probability in found)
    return min(1.0, max(1, tries) * (1.0 - least))


def benjamini_hochberg(chances: Sequence[float], level: float) -> tuple[Ranked, ...]:
    """Hold each p of a batch against the level, all of them at once; in the order in which they came.

    >>> [item.allowed for item in benjamini_hochberg([0.02, 0.09, 0.04, 0.7], 0.1)]
    [True, False, True, False]
    """
    # takes half a second to import, which servers need not wait for
    from scipy.stats import false_discovery_control, rankdata

    if not chances:
        return ()
    of = len(chances)
    adjusted = np.asarray(false_discovery_control(chances, method="bh"))
    ranks = np.asarray(rankdata(chances, method="max")).astype(int)
    return tuple(
        Ranked(float(p), int(rank), of, float(level * rank / of), bool(found <= level))
        for p, rank, found in zip(chances, ranks, adjusted, strict=True)
    )
