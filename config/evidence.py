"""`backtest`, `promotion` and `retrain`: where reports land, what a model must show, when it is trained again."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from signalserve.config.fields import Duration, Section, UtcTime


class BacktestSettings(Section):
    """Where backtests land."""

    output_dir: Path = Path("outputs/backtests")


class PromotionSettings(Section):
    """What the promote gate asks for.

    `min_probability`: P(timing is skill) by shifted copies of the positions, and P(challenger better) by the block
    bootstrap; after k looks at these bars 1 - (1 - p) / k is asked for. Drawdowns are shares of the high before (0.3
    is 30 %); a champion's counts as `drawdown_floor` at least, so that one that hardly traded blocks nobody.
    `min_deflated_sharpe` is the probability that the Sharpe ratio is no luck of many looks. `min_sharpe` is an
    annualised ratio, for a key without a champion. `hand_edits`: whether servers serve what an edit of the index put
    into production, or hold to what was decided until somebody confirms it. `max_data_age`: of the last bar that was
    judged on; None: not asked. `min_walk_forward`: the same of the joined folds, and that their Sharpe ratio is above
    what luck gave the grid; None: not asked. `training_span`: `declared` believes meta.json; `registered` counts only
    bars of after the registration, which nobody can have trained on. `accept`: who may have measured, `trainer`,
    `evaluate` (on the configured bars), `brought` (on others). `accept_kinds`: evidence on the very files
    (`artefact`), or on the recipe of a model that was refitted (`recipe`). `require_training_record`: refuse a model
    whose training kept neither its bars' digests nor its folds, as one that was trained elsewhere has none.
    """

    gate: Literal["evidence", "none"] = "evidence"
    hand_edits: Literal["follow", "hold"] = "follow"
    min_probability: float = Field(default=0.9, ge=0.0, le=1.0)
    min_bars: int = Field(default=500, ge=2)
    min_trades: int = Field(default=10, ge=0)
    max_drawdown: float = Field(default=0.3, gt=0.0, le=1.0)
    max_drawdown_ratio: float | None = Field(default=1.5, gt=0.0)
    drawdown_floor: float = Field(default=0.05, ge=0.0, le=1.0)
    min_sharpe: float = 0.0
    min_deflated_sharpe: float = Field(default=0.5, ge=0.0, le=1.0)
    max_evidence_age: Duration = timedelta(days=7)
    max_data_age: Duration | None = timedelta(days=30)
    min_walk_forward: float | None = Field(default=0.5, ge=0.0, le=1.0)
    training_span: Literal["declared", "registered"] = "declared"
    accept: tuple[Literal["trainer", "evaluate", "brought"], ...] = ("trainer", "evaluate", "brought")
    accept_kinds: tuple[Literal["artefact", "recipe"], ...] = ("artefact",)
    require_training_record: bool = False
    resamples: int = Field(default=2_000, ge=100, le=1_000_000)
    block_bars: float | None = Field(default=None, ge=1.0)
    seed: int = Field(default=42, ge=0, le=2**32 - 1)


class RetrainPolicy(Section):
    """What is trained again, when, and on which bars.

    `symbols` and `timeframes` are names or shell patterns (`*USDT`), which stand for the bar files that are
    there. `schedule` is a cron expression in UTC, taken every `weeks`-th week. Bars: the last `lookback_days`,
    or fixed spans, or all. `refit` None: as `ml.refit` says.
    """

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9_.-]+$")
    symbols: list[str] = Field(min_length=1)
    timeframes: list[str] = Field(default_factory=lambda: ["15m"], min_length=1)
    schedule: str = "0 3 * * 1"
    weeks: int = Field(default=1, ge=1, le=52)
    lookback_days: float | None = Field(default=None, gt=0.0)
    train_start: UtcTime | None = None
    train_end: UtcTime | None = None
    test_start: UtcTime | None = None
    test_end: UtcTime | None = None
    model_type: str | None = None
    preset: str | None = None
    grid: bool = False
    refit: bool | None = None
    auto_promote: bool = False

    @model_validator(mode="after")
    def _spans_fit_together(self) -> RetrainPolicy:
        spans = [self.train_start, self.train_end, self.test_start, self.test_end]
        if self.lookback_days is not None and any(spans):
            raise ValueError("lookback_days and fixed spans exclude one another")
        given = [moment for moment in spans if moment is not None]
        if given != sorted(given):
            raise ValueError("train_start, train_end, test_start, test_end must follow one another")
        return self


class RetrainSettings(Section):
    """Scheduled retraining."""

    policies: list[RetrainPolicy] = Field(default_factory=list)
    backend: Literal["local", "ray"] = "local"
    processes: int = Field(default=2, ge=1, le=512)
    ray_address: str | None = None
    output_dir: Path = Path("outputs/retrain")

    @field_validator("policies")
    @classmethod
    def _names_differ(cls, policies: list[RetrainPolicy]) -> list[RetrainPolicy]:
        names = [policy.name for policy in policies]
        if len(set(names)) != len(names):
            raise ValueError("two policies have one name")
        return policies
