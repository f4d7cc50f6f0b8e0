"""From a score to a signal; p is the score, the probability of class 1.

A model's expected return is held against thresholds of its own: read `value_entry_bps` for `proba_entry`,
`value_exit_bps` for `proba_exit`, and -threshold for 1 - threshold.

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

from signalserve.trading.rules import PROBABILITY, VALUE, TradingRules


class Signal(StrEnum):
    """What to be from the next open on: long, short, or out of the market."""

    LONG = "LONG"
    SHORT = "SHORT"
    CLOSE = "CLOSE"


@dataclass(frozen=True, slots=True)
class MLSignalStrategy:
    """Long, short or flat by two thresholds of the probability, or of the expected return.

    >>> strategy = MLSignalStrategy(TradingRules(0.55, 0.45, fee_bps=5.0, slippage_bps=2.0))
    >>> strategy.on_score(0.6, side=0, bars_since=0)
    <Signal.LONG: 'LONG'>
    >>> strategy.on_score(0.002, side=0, bars_since=0, output="value")
    <Signal.LONG: 'LONG'>
    """

    rules: TradingRules

    def on_score(
        self, score: float | None, *, side: int, bars_since: int, output: str = PROBABILITY
    ) -> Signal | None:
        """Decide at a bar's close.

        Args:
            score: the bar's; None or NaN: there is none.
            side: what is held at this close: 1 long, -1 short, 0 nothing.
            bars_since: how many bars have passed since the first scored one; 0 on that bar itself.
            output: what the score is, `probability` or `value`.
        """
        rules = self.rules
        if bars_since < rules.warmup_bars or score is None or math.isnan(score):
            return None
        entry, leave = rules.thresholds(output)
        mirror = 1.0  # what a score and its opposite come to together
        if output == VALUE:
            score, mirror = score * 10_000.0, 0.0
        up = score >= entry
        down = rules.allow_short and score <= mirror - entry
        if side > 0:
            if up or score > leave:
                return None
            return Signal.SHORT if down else Signal.CLOSE
        if side < 0:
            if down or score < mirror - leave:
                return None
            return Signal.LONG if up else Signal.CLOSE
        if up:
            return Signal.LONG
        return Signal.SHORT if down else None
