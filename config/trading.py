"""`trading`: the one account of backtest, gate and live engine."""

from __future__ import annotations

from pydantic import Field, model_validator

from signalserve.config.fields import Section


class TradingSettings(Section):
    """When to trade, and what it costs, in basis points a side.

    A regressor's value is an expected return and has thresholds of its own, in basis points of it.
    """

    proba_entry: float = Field(default=0.55, ge=0.0, le=1.0)
    proba_exit: float = Field(default=0.45, ge=0.0, le=1.0)
    value_entry_bps: float | None = Field(default=None, ge=0.0, lt=10_000.0)
    value_exit_bps: float = Field(default=0.0, gt=-10_000.0, lt=10_000.0)
    warmup_bars: int = Field(default=0, ge=0)
    allow_short: bool = False
    fee_bps: float = Field(default=5.0, ge=0.0, lt=1_000.0)
    slippage_bps: float = Field(default=2.0, ge=0.0, lt=1_000.0)
    starting_equity: float = Field(default=10_000.0, gt=0.0)

    @model_validator(mode="after")
    def _exit_is_below_entry(self) -> TradingSettings:
        if self.proba_exit > self.proba_entry:
            raise ValueError("proba_exit must not be above proba_entry")
        entry = self.value_entry_bps
        if entry is None and self.value_exit_bps > 2.0 * (self.fee_bps + self.slippage_bps):
            raise ValueError(
                "value_exit_bps must not be above what a round trip costs: give value_entry_bps too"
            )
        if entry is not None and self.value_exit_bps > entry:
            raise ValueError("value_exit_bps must not be above value_entry_bps")
        return self
