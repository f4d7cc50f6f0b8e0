"""What an account trades by."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Protocol


class HasRules(Protocol):
    """Anything with attributes of these names: the `trading` section of the configuration, say."""

    @property
    def proba_entry(self) -> float: ...  # noqa: D102 - TradingRules says what they are
    @property
    def proba_exit(self) -> float: ...  # noqa: D102
    @property
    def fee_bps(self) -> float: ...  # noqa: D102
    @property
    def slippage_bps(self) -> float: ...  # noqa: D102
    @property
    def warmup_bars(self) -> int: ...  # noqa: D102
    @property
    def allow_short(self) -> bool: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class TradingRules:
    """When to trade, and what it costs; basis points are of a fill's value, a side.

    >>> TradingRules(0.55, 0.45, fee_bps=5.0, slippage_bps=2.0).allow_short
    False

    Raises:
        ValueError: a threshold is not in [0, 1], the exit is above the entry, the costs are negative or eat
            everything, or the warm-up is negative.
    """

    proba_entry: float
    proba_exit: float
    fee_bps: float
    slippage_bps: float
    warmup_bars: int = 0
    allow_short: bool = False

    def __post_init__(self) -> None:
        for name in ("proba_entry", "proba_exit"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be from 0 to 1")
        if self.proba_exit > self.proba_entry:
            raise ValueError(f"proba_exit {self.proba_exit} is above proba_entry {self.proba_entry}")
        fee, slippage = self.fee_bps, self.slippage_bps
        if not (fee >= 0.0 and slippage >= 0.0 and fee + slippage < 10_000.0):
            raise ValueError(f"costs of {fee} + {slippage} basis points make no sense")
        if self.warmup_bars < 0:
            raise ValueError(f"warmup_bars is {self.warmup_bars}; it must be 0 or more")

    @classmethod
    def of(cls, section: HasRules) -> TradingRules:
        """Take them from what has attributes of these names."""
        return cls(**{field.name: getattr(section, field.name) for field in fields(cls)})
