"""An account that trades scores, bar by bar: the one loop body that backtest, gate and live engine run.

1. At a bar's open what was ordered fills.
2. At its close equity is marked, then the strategy sees the bar's score and what is held, and its signal is ordered.
   A score that comes later trades nothing.
3. The strategy's warm-up counts from the first bar that had a score at its close.
4. An account that has lost everything gets no signal.
"""

from __future__ import annotations

import math

from signalserve.trading.account import Account, Fill
from signalserve.trading.rules import PROBABILITY, TradingRules
from signalserve.trading.strategy import MLSignalStrategy, Signal


class Trader:
    """A strategy with an account of its own.

    >>> trader = Trader(TradingRules(0.55, 0.45, fee_bps=0.0, slippage_bps=0.0), 1000.0)
    >>> trader.open_bar(50.0), trader.close_bar(52.0, 0.6)
    ((), <Signal.LONG: 'LONG'>)
    >>> trader.open_bar(50.0)[0].side, trader.close_bar(55.0, None), trader.account.equity
    ('buy', None, 1100.0)

    Raises:
        ValueError: the starting equity is not above zero.
    """

    def __init__(self, rules: TradingRules, starting_equity: float) -> None:
        self.rules = rules
        self.account = Account(rules, starting_equity)
        self._strategy = MLSignalStrategy(rules)
        self._bars_since: int | None = None

    def open_bar(self, price: float) -> tuple[Fill, ...]:
        """Fill what was ordered at the close before."""
        return self.account.open_bar(price)

    def close_bar(self, price: float, score: float | None, output: str = PROBABILITY) -> Signal | None:
        """Mark the equity, decide and order; `score` None or NaN: the bar has none. `output`: what it is."""
        account = self.account
        account.mark(price)
        if self._bars_since is not None:
            self._bars_since += 1
        elif score is None or math.isnan(score):
            return None
        else:
            self._bars_since = 0
        if account.ruined:
            return None
        signal = self._strategy.on_score(score, side=account.side, bars_since=self._bars_since, output=output)
        account.order(signal)
        return signal
