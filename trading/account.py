"""One account: cash, a position, and what fills cost.

1. What was ordered at a bar's close fills at the next bar's open, once. A flip closes and opens at that same open.
   An order for the side that is held already does nothing.
2. A buy fills at the price times (1 + slippage), a sell at the price times (1 - slippage); each fill pays
   `fee_bps` of its value.
3. All equity is used: a long buys cash / (fill price * (1 + fee)), and a short sells as much.
4. Equity is marked at each close. A short that has lost everything there is closed at that close with an equity of
   zero, and nothing more is traded; so it is where an open takes everything.
5. What is open stays open until it is ordered out; `close_out`, the end of a backtest, closes it at the last
   close, with costs.
"""

from __future__ import annotations

from dataclasses import dataclass

from signalserve.trading.rules import TradingRules
from signalserve.trading.strategy import Signal

_SIDES = {Signal.LONG: 1, Signal.SHORT: -1, Signal.CLOSE: 0}


@dataclass(frozen=True, slots=True)
class Fill:
    """One fill: `buy` or `sell`, at the open of a bar (the account's first is 0), or `at_close`.

    `price` has the slippage in it; `cost` is the money that slippage and `fee` took.
    """

    bar: int
    side: str
    quantity: float
    price: float
    fee: float
    cost: float
    at_close: bool = False


@dataclass(frozen=True, slots=True)
class Trade:
    """A round trip, `long` or `short`. Prices are those of the fills; `net_return` is a share of the equity at entry.

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


class Account:
    """Cash and a position, stepped bar by bar: `open_bar`, `mark` and `order`, in this order.

    >>> account = Account(TradingRules(0.55, 0.45, fee_bps=0.0, slippage_bps=0.0), 1000.0)
    >>> account.order(Signal.LONG)
    >>> account.open_bar(50.0)[0].quantity
    20.0
    >>> account.mark(55.0)
    1100.0

    Attributes:
        side: 1 long, -1 short, 0 flat.
        equity: money at the last mark.
        fills, trades: all so far; a trade is added when it is closed.

    Raises:
        ValueError: the starting equity is not above zero.
    """

    def __init__(self, rules: TradingRules, starting_equity: float) -> None:
        if not starting_equity > 0.0:
            raise ValueError(f"starting_equity is {starting_equity}; it must be above 0")
        self.starting_equity = starting_equity
        self.equity = starting_equity
        self.side = 0
        self.fills: list[Fill] = []
        self.trades: list[Trade] = []
        self._cash = starting_equity
        self._quantity = 0.0
        self._bar = -1
        self._order: Signal | None = None
        self._fee = rules.fee_bps / 10_000.0
        self._slippage = rules.slippage_bps / 10_000.0
        self._entry = (0, 0.0, 0.0, 0.0)  # bar, price, fee, equity before

    @property
    def position(self) -> str:
        """What is held, in a word: `long`, `short` or `flat`."""
        return ("flat", "long", "short")[self.side]

    @property
    def ruined(self) -> bool:
        """Whether everything is lost; nothing more is traded then."""
        return not self.side and self._cash <= 0.0

    def order(self, signal: Signal | None) -> None:
        """Take the signal of a close; it fills at the next open. None orders nothing."""
        self._order = signal

    def open_bar(self, price: float) -> tuple[Fill, ...]:
        """Fill what was ordered at the close before, at this bar's open; a flip gives two fills."""
        self._bar += 1
        order, self._order = self._order, None
        if order is None or _SIDES[order] == self.side:
            return ()
        known = len(self.fills)
        if self.side:
            self._leave(price)
        if _SIDES[order] and self._cash > 0.0:
            self._enter(_SIDES[order], price)
        return tuple(self.fills[known:])

    def mark(self, price: float) -> float:
        """Value everything at the bar's close and give the equity."""
        # nothing held is worth nothing, whatever the price: zero times NaN would be NaN
        self.equity = self._cash + self._quantity * price if self.side else self._cash
        if self.side < 0 and self.equity <= 0.0:
            self._leave(price, at_close=True)
            self.equity = self._cash
        return self.equity

    def close_out(self, price: float) -> float:
        """Close what is open at the last bar's close, and give the equity."""
        if self.side:
            self._leave(price, at_close=True, open_at_end=True)
            self.equity = self._cash
        return self.equity

    def _enter(self, side: int, price: float) -> None:
        fill = price * (1.0 + side * self._slippage)
        before = self._cash
        quantity = before / (fill * (1.0 + self._fee))
        value = quantity * fill
        fee = value * self._fee
        # a long has all of it in the position; rounding may leave a speck
        self._cash = 0.0 if side > 0 else before + value - fee
        self.side, self._quantity = side, side * quantity
        self._entry = (self._bar, fill, fee, before)
        self._note("buy" if side > 0 else "sell", quantity, price, fill, fee)

    def _leave(self, price: float, *, at_close: bool = False, open_at_end: bool = False) -> None:
        entry_bar, entry_price, entry_fee, before = self._entry
        side, quantity = self.side, abs(self._quantity)
        fill = price * (1.0 - side * self._slippage)
        value = quantity * fill
        fee = value * self._fee
        self._cash = max(self._cash + side * value - fee, 0.0)
        pnl = self._cash - before
        self.side, self._quantity = 0, 0.0
        self._note("sell" if side > 0 else "buy", quantity, price, fill, fee, at_close=at_close)
        self.trades.append(
            Trade(
                side="long" if side > 0 else "short",
                entry_bar=entry_bar,
                exit_bar=self._bar,
                entry_price=entry_price,
                exit_price=fill,
                quantity=quantity,
                fees=entry_fee + fee,
                pnl=pnl,
                net_return=pnl / before,
                open_at_end=open_at_end,
            )
        )

    def _note(
        self, side: str, quantity: float, price: float, fill: float, fee: float, *, at_close: bool = False
    ) -> None:
        cost = quantity * abs(fill - price) + fee
        self.fills.append(Fill(self._bar, side, quantity, fill, fee, cost, at_close))
