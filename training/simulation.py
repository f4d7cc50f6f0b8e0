"""One simulation of one account: the metrics of training, the backtest and the promote gate all use it.

1. A signal at the close of bar t fills at the open of bar t + 1; nothing reads a later bar.
2. Long: entered where p >= proba_entry, left where p <= proba_exit. Short, if allowed: entered where
   p <= 1 - proba_entry, left where p >= 1 - proba_exit. A flip closes and opens at the same open.
3. A NaN probability, and the first `warmup_bars` bars, give no signal: what is held is held on.
4. A buy fills at the price times (1 + slippage), a sell at the price times (1 - slippage); each fill pays
   `fee_bps` of its value. All equity is used, so a long buys cash / (fill price * (1 + fee)), and a short sells
   as much.
5. What is open at the end is closed at the last close, with costs. A short that has lost everything is
   closed there with an equity of zero, and nothing more is traded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from signalserve.config.settings import Settings

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Rules:
    """When to trade, and what it costs; basis points are of a fill's value, a side."""

    proba_entry: float
    proba_exit: float
    fee_bps: float
    slippage_bps: float
    warmup_bars: int = 0
    allow_short: bool = False

    @classmethod
    def from_settings(cls, settings: Settings) -> Rules:
        """The live engine's thresholds with the backtest's costs."""
        return cls(**settings.trading_rules)


@dataclass(frozen=True)
class Trade:
    """A round trip. Prices are those of the fills, slippage included; `net_return` is a share of the equity at entry.

    `entry_bar` and `exit_bar` are the bars at whose open it filled; where `open_at_end`, it was closed at the
    close of `exit_bar`.
    """

    side: str
    entry_bar: int
    exit_bar: int
    entry_price: float
    exit_price: float
    quantity: float
    fees: float
    pnl: float
    net_return: float
    open_at_end: bool = False


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
    fills: int


def simulate(
    open_: Array, close: Array, probability: Array, rules: Rules, *, starting_equity: float = 1.0
) -> Simulation:
    """Trade n bars, all arrays float64 [n]; `probability` is P(class 1) at each close.

    Raises:
        ValueError: the arrays are not of one length, or the starting equity is not above zero.
    """
    n = len(close)
    if not len(open_) == n == len(probability):
        raise ValueError(f"open, close and probability have {len(open_)}, {n} and {len(probability)} bars")
    if not starting_equity > 0.0:
        raise ValueError(f"starting_equity is {starting_equity}; it must be above 0")
    account = _Account(starting_equity, rules)
    targets = _targets(probability, rules)
    opens, closes = open_.tolist(), close.tolist()
    position, equity = np.zeros(n), np.empty(n)
    for bar in range(n):
        if bar and not account.ruined:
            account.move_to(targets[bar - 1], opens[bar], bar)
        position[bar] = account.side
        equity[bar] = account.mark(closes[bar], bar)
    if n and account.side:
        account.leave(closes[-1], n - 1, open_at_end=True)
        equity[-1] = account.cash
    before = np.concatenate(([starting_equity], equity[:-1]))
    returns = np.divide(equity, before, out=np.ones(n), where=before > 0.0) - 1.0
    return Simulation(returns, position, equity, tuple(account.trades), account.fills)


def _targets(probability: Array, rules: Rules) -> list[int]:
    """The position wanted after each close."""
    targets: list[int] = []
    side = 0
    for bar, seen in enumerate(probability.tolist()):
        if bar >= rules.warmup_bars and seen == seen:  # NaN is no signal
            side = _next_side(side, seen, rules)
        targets.append(side)
    return targets


def _next_side(side: int, seen: float, rules: Rules) -> int:
    up = seen >= rules.proba_entry
    down = rules.allow_short and seen <= 1.0 - rules.proba_entry
    if side > 0:
        return side if seen > rules.proba_exit else -int(down)
    if side < 0:
        return side if seen < 1.0 - rules.proba_exit else int(up)
    return int(up) - int(down and not up)


class _Account:
    """Cash and a signed quantity."""

    def __init__(self, cash: float, rules: Rules) -> None:
        self.cash = cash
        self.side = 0
        self.fills = 0
        self.trades: list[Trade] = []
        self.ruined = False
        self._quantity = 0.0
        self._fee = rules.fee_bps / 10_000.0
        self._slippage = rules.slippage_bps / 10_000.0
        self._entry = (0, 0.0, 0.0, 0.0)  # bar, price, fee, equity before

    def move_to(self, side: int, price: float, bar: int) -> None:
        """Be long (1), short (-1) or flat (0) from this price on."""
        if side == self.side:
            return
        if self.side:
            self.leave(price, bar)
        if side and self.cash > 0.0:
            self._enter(side, price, bar)

    def mark(self, price: float, bar: int) -> float:
        """The equity at a close; a short that has lost everything ends here."""
        equity = self.cash + self._quantity * price
        if self.side < 0 and equity <= 0.0:
            self.leave(price, bar)
            self.ruined = True
            return self.cash
        return equity

    def leave(self, price: float, bar: int, *, open_at_end: bool = False) -> None:
        """Close what is open."""
        entry_bar, entry_price, entry_fee, before = self._entry
        fill = price * (1.0 - self.side * self._slippage)
        value = abs(self._quantity) * fill
        fee = value * self._fee
        self.cash = max(self.cash + self.side * value - fee, 0.0)
        pnl = self.cash - before
        self.trades.append(
            Trade(
                side="long" if self.side > 0 else "short",
                entry_bar=entry_bar,
                exit_bar=bar,
                entry_price=entry_price,
                exit_price=fill,
                quantity=abs(self._quantity),
                fees=entry_fee + fee,
                pnl=pnl,
                net_return=pnl / before,
                open_at_end=open_at_end,
            )
        )
        self.fills += 1
        self.side, self._quantity = 0, 0.0

    def _enter(self, side: int, price: float, bar: int) -> None:
        fill = price * (1.0 + side * self._slippage)
        before = self.cash
        quantity = before / (fill * (1.0 + self._fee))
        value = quantity * fill
        fee = value * self._fee
        self.cash = before - value - fee if side > 0 else before + value - fee
        if side > 0:
            self.cash = 0.0  # all of it is in the position; rounding may leave a speck
        self.side, self._quantity = side, side * quantity
        self.fills += 1
        self._entry = (bar, fill, fee, before)
