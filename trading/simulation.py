"""The account over arrays of bars: what training, the backtest and the promote gate measure.

It is `Trader`, fed one bar after the other, so nothing reads a later bar. What is open at the end is closed at the
last close, with costs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from signalserve.trading.account import Fill, Trade
from signalserve.trading.rules import PROBABILITY, TradingRules
from signalserve.trading.trader import Trader

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Simulation:
    """Outcome over n bars.

    `returns` float64 [n]: net, of each bar's equity. `position` float64 [n]: -1, 0 or 1, held from the bar's
    open to its close. `equity` float64 [n]: money at each close.
    """

    returns: Array
    position: Array
    equity: Array
    trades: tuple[Trade, ...]
    fills: tuple[Fill, ...]


def simulate(
    open_: Array,
    close: Array,
    scores: Array,
    rules: TradingRules,
    *,
    starting_equity: float = 1.0,
    output: str = PROBABILITY,
) -> Simulation:
    """Trade n bars, all arrays float64 [n]; `scores` are those at each close, NaN where there is none.

    `output`: what they are, `probability` of class 1 or `value`, the expected return as a share.

    Raises:
        ValueError: the arrays are not of one length, or the starting equity is not above zero.
    """
    n = len(close)
    if not len(open_) == n == len(scores):
        raise ValueError(f"open, close and scores have {len(open_)}, {n} and {len(scores)} bars")
    trader = Trader(rules, starting_equity)
    account = trader.account
    position, equity = np.zeros(n), np.empty(n)
    bars = zip(open_.tolist(), close.tolist(), scores.tolist(), strict=True)
    for bar, (opened, closed, score) in enumerate(bars):
        trader.open_bar(opened)
        position[bar] = account.side
        trader.close_bar(closed, score, output)
        equity[bar] = account.equity
    if n:
        equity[-1] = account.close_out(float(close[-1]))
    before = np.concatenate(([starting_equity], equity[:-1]))
    returns = np.divide(equity, before, out=np.ones(n), where=before > 0.0) - 1.0
    return Simulation(returns, position, equity, tuple(account.trades), tuple(account.fills))
