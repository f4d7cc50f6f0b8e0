"""A paper position: what the signals would have earned.

The rules are the backtest's, so that both give the same figures for the same scores:

1. A signal at the close of a bar fills at the open of the next one.
2. A buy fills at the open times (1 + slippage), a sell at the open times (1 - slippage); each fill pays
   `fee_bps` of its value.
3. Long with all of the equity, or flat; equity is marked at each close. An open position stays open.
"""

from __future__ import annotations

from dataclasses import dataclass

from signalserve.live.strategy import Signal


@dataclass(frozen=True, slots=True)
class Fill:
    """One fill: the price is the bar's open, `cost` the money that fee and slippage took."""

    signal: Signal
    price: float
    cost: float


class PaperPosition:
    """Equity and position.

    Args:
        starting_equity: money at the start.
        fee_bps: basis points of the value a fill.
        slippage_bps: likewise.

    Raises:
        ValueError: the equity is not above zero, or the costs are negative or eat everything.
    """

    def __init__(self, starting_equity: float, *, fee_bps: float = 0.0, slippage_bps: float = 0.0) -> None:
        if not starting_equity > 0.0:
            raise ValueError(f"starting_equity is {starting_equity}; it must be above 0")
        if not (fee_bps >= 0.0 and slippage_bps >= 0.0 and fee_bps + slippage_bps < 10_000.0):
            raise ValueError(f"costs of {fee_bps} + {slippage_bps} basis points make no sense")
        self.starting_equity = starting_equity
        self.equity = starting_equity
        """At the last mark or fill."""
        self.fills: list[Fill] = []
        self._fee = fee_bps / 10_000.0
        self._slippage = slippage_bps / 10_000.0
        self._units = 0.0
        self._order: Signal | None = None

    @property
    def is_long(self) -> bool:
        """Whether something is held."""
        return self._units > 0.0

    @property
    def name(self) -> str:
        """The position in a word: `long` or `flat`."""
        return "long" if self.is_long else "flat"

    def order(self, signal: Signal | None) -> None:
        """Take the signal of a close; it fills at the next open. What does not fit the position does nothing."""
        self._order = signal

    def open_bar(self, price: float) -> Fill | None:
        """Fill what was ordered at the close before, at this bar's open."""
        order, self._order = self._order, None
        if order is None or (order is Signal.LONG) == self.is_long:
            return None
        if order is Signal.LONG:
            value = self.equity
            self._units = value / (price * (1.0 + self._slippage) * (1.0 + self._fee))
            self.equity = self._units * price
        else:
            value = self._units * price
            self.equity = value * (1.0 - self._slippage) * (1.0 - self._fee)
            self._units = 0.0
        fill = Fill(order, price, value - self.equity)
        self.fills.append(fill)
        return fill

    def mark(self, price: float) -> float:
        """Value everything at a bar's close and give the equity."""
        if self.is_long:
            self.equity = self._units * price
        return self.equity
