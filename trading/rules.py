"""What an account trades by."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol

PROBABILITY, VALUE = "probability", "value"
"""What a model's score is: the probability of class 1, or the expected return as a share (0.002 is 20 bps)."""
THRESHOLDS = {
    PROBABILITY: ("proba_entry", "proba_exit"),
    VALUE: ("value_entry_bps", "value_exit_bps"),
}
"""What each kind of score is held against, entry and exit."""


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
    @property
    def value_entry_bps(self) -> float | None: ...  # noqa: D102
    @property
    def value_exit_bps(self) -> float: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class TradingRules:
    """When to trade, and what it costs; basis points are of a fill's value, a side.

    A probability is held against `proba_entry` and `proba_exit`; an expected return against `value_entry_bps`, where
    None stands for what a round trip costs, and `value_exit_bps`.

    >>> TradingRules(0.55, 0.45, fee_bps=5.0, slippage_bps=2.0).allow_short
    False

    Raises:
        ValueError: a probability's threshold is not in [0, 1], a value's entry is below 0 or either is no finite
            number, the exit is above the entry, the costs are negative or eat everything, or the warm-up is negative.
    """

    proba_entry: float
    proba_exit: float
    fee_bps: float
    slippage_bps: float
    warmup_bars: int = 0
    allow_short: bool = False
    value_entry_bps: float | None = None
    value_exit_bps: float = 0.0

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
        entry, leave = self.thresholds(VALUE)
        if not (0.0 <= entry < math.inf and math.isfinite(leave)):
            raise ValueError(f"value_entry_bps {entry} must be 0 or more, and value_exit_bps {leave} finite")
        if leave > entry:
            raise ValueError(f"value_exit_bps {leave} is above value_entry_bps {entry}")

    def thresholds(self, output: str) -> tuple[float, float]:
        """At what a long is entered and left: probabilities, or for `value` basis points of expected return.

        >>> TradingRules(0.55, 0.45, fee_bps=5.0, slippage_bps=2.0).thresholds("value")
        (14.0, 0.0)
        """
        if output != VALUE:
            return self.proba_entry, self.proba_exit
        entry = self.value_entry_bps
        return round_trip_bps(
            self.fee_bps, self.slippage_bps
        ) if entry is None else entry, self.value_exit_bps

    def used_for(self, outputs: Collection[str]) -> dict[str, Any]:
        """The rules by name, with the thresholds of these kinds of score alone."""
        others = {name for names in THRESHOLDS.values() for name in names}
        found = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in others}
        return {
            **{
                name: value
                for output in outputs
                for name, value in zip(THRESHOLDS[output], self.thresholds(output), strict=True)
            },
            **found,
        }

    @classmethod
    def of(cls, section: HasRules) -> TradingRules:
        """Take them from what has attributes of these names."""
        return cls(**{field.name: getattr(section, field.name) for field in fields(cls)})


def round_trip_bps(fee_bps: float, slippage_bps: float) -> float:
    """What buying and selling cost together, in basis points."""
    return 2.0 * (fee_bps + slippage_bps)


def unused_thresholds(rules: Mapping[str, Any]) -> frozenset[str]:
    """Thresholds of the kinds of score that `rules`, as `used_for` gives them, were not used for."""
    absent = {output for output, names in THRESHOLDS.items() if not set(names) & set(rules)}
    # with neither it can't be told what was used, and nothing is let off
    return (
        frozenset(name for output in absent for name in THRESHOLDS[output])
        if len(absent) == 1
        else frozenset()
    )
