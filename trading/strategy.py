"""From a score to a signal; p is the score, the probability of class 1.

1. Flat: LONG where p >= proba_entry; else SHORT, if allowed, where p <= 1 - proba_entry.
2. A long is left where p <= proba_exit, a short where p >= 1 - proba_exit: by the signal of the other side where
   p asks for that too (a flip), else by CLOSE. Between the thresholds nothing changes.
3. A score that would enter a side does not leave it. This matters where both thresholds are one number and the
   score is on it: it would be bought at one open and sold at the next.
4. Nothing without a score, and nothing on the first `warmup_bars` bars from the first scored one on: what is held
   is held on.

No state and no I/O: the answer depends on the arguments alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from signalserve.trading.rules import TradingRules


class Signal(StrEnum):
    """What to be from the next open on: long, short, or out of the market."""

    LONG = "LONG"
    SHORT = "SHORT"
    CLOSE = "CLOSE"


@dataclass(frozen=True, slots=True)
class MLSignalStrategy:
    """Long, short or flat by two thresholds of the probability.

    >>> strategy = MLSignalStrategy(TradingRules(0.55, 0.45, fee_bps=5.0, slippage_bps=2.0))
    >>> strategy.on_score(0.6, side=0, bars_since=0)
    <Signal.LONG: 'LONG'>
    """

    rules: TradingRules

    def on_score(self, score: float | None, *, side: int, bars_since: int) -> Signal | None:
        """Decide at a bar's close.

        Args:
            score: the bar's; None or NaN: there is none.
            side: what is held at this close: 1 long, -1 short, 0 nothing.
            bars_since: how many bars have passed since the first scored one; 0 on that bar itself.
        """
        rules = self.rules
        if bars_since < rules.warmup_bars or score is None or math.isnan(score):
            return None
        up = score >= rules.proba_entry
        down = rules.allow_short and score <= 1.0 - rules.proba_entry
        if side > 0:
            if up or score > rules.proba_exit:
                return None
            return Signal.SHORT if down else Signal.CLOSE
        if side < 0:
            if down or score < 1.0 - rules.proba_exit:
                return None
            return Signal.LONG if up else Signal.CLOSE
        if up:
            return Signal.LONG
        return Signal.SHORT if down else None
