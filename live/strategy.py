"""From a score to a signal.

1. LONG when flat and the probability is at least `proba_entry`.
2. CLOSE when long and the probability is at most `proba_exit`; between the two thresholds nothing changes.
3. Nothing during the warm-up, and nothing without a score: a missing score never opens or closes anything.

No state and no I/O: the answer depends on the arguments alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum


class Signal(StrEnum):
    """What to do at the next open."""

    LONG = "LONG"
    CLOSE = "CLOSE"


@dataclass(frozen=True)
class MLSignalStrategy:
    """Long or flat by two thresholds.

    `warmup_bars`: so many bars with features give no signal, in addition to those that have no features yet.

    >>> strategy = MLSignalStrategy(proba_entry=0.55, proba_exit=0.45)
    >>> strategy.on_score(0.6, bars_seen=0, is_long=False)
    <Signal.LONG: 'LONG'>

    Raises:
        ValueError: a threshold is not in [0, 1], the exit is above the entry, or the warm-up is negative.
    """

    proba_entry: float = 0.55
    proba_exit: float = 0.45
    warmup_bars: int = 0

    def __post_init__(self) -> None:
        for name in ("proba_entry", "proba_exit"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be from 0 to 1")
        if self.proba_exit > self.proba_entry:
            raise ValueError(f"proba_exit {self.proba_exit} is above proba_entry {self.proba_entry}")
        if self.warmup_bars < 0:
            raise ValueError(f"warmup_bars is {self.warmup_bars}; it must be 0 or more")

    def on_score(self, probability: float | None, *, bars_seen: int, is_long: bool) -> Signal | None:
        """Decide at a bar's close.

        Args:
            probability: the bar's score; None or NaN: there is none.
            bars_seen: how many bars with features came before this one.
            is_long: the position at this close, the fill at this bar's open included.
        """
        if bars_seen < self.warmup_bars or probability is None or math.isnan(probability):
            return None
        if not is_long and probability >= self.proba_entry:
            return Signal.LONG
        # with equal thresholds a probability on them buys when flat and must not sell the bar after
        if is_long and probability <= self.proba_exit and probability < self.proba_entry:
            return Signal.CLOSE
        return None
