"""`data` and `ml`: bars, labels, models, folds, and which model answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from signalserve.common.key import Key
from signalserve.config.fields import Duration, PathTemplate, Section

_DEFAULT_MODELS: dict[str, dict[str, Any]] = {
    "logreg": {"C": 0.1},
    "rf": {"n_estimators": 200, "max_depth": 6, "min_samples_leaf": 50},
    "extra_trees": {"n_estimators": 200, "max_depth": 6, "min_samples_leaf": 50},
    "gb": {"n_estimators": 150, "max_depth": 3, "learning_rate": 0.05},
    "hist_gb": {"max_iter": 150, "max_depth": 4, "learning_rate": 0.05},
    "xgb": {"n_estimators": 300, "max_depth": 4, "learning_rate": 0.05},
    "calibrated_rf": {"n_estimators": 100, "max_depth": 6, "min_samples_leaf": 50},
}
_DEFAULT_GRIDS: dict[str, dict[str, list[Any]]] = {
    "logreg": {"C": [0.01, 0.1, 1.0]},
    "rf": {"max_depth": [4, 6, 8], "min_samples_leaf": [25, 50, 100]},
    "extra_trees": {"max_depth": [4, 6, 8], "min_samples_leaf": [25, 50, 100]},
    "gb": {"max_depth": [2, 3], "learning_rate": [0.03, 0.1]},
    "hist_gb": {"max_depth": [3, 4, 6], "learning_rate": [0.03, 0.1]},
    "xgb": {"max_depth": [3, 4, 6], "learning_rate": [0.03, 0.1]},
    "calibrated_rf": {"max_depth": [4, 6], "min_samples_leaf": [25, 100]},
}


class DataSettings(Section):
    """Where bars come from."""

    ohlcv_path: PathTemplate = "data/{symbol}_{timeframe}.csv"

    def ohlcv_file(self, symbol: str, timeframe: str) -> Path:
        """The bar file of a key."""
        return Path(self.ohlcv_path.format(symbol=symbol, timeframe=timeframe))


class LabelSettings(Section):
    """How a bar gets its class. `volatility_bars`: triple-barrier thresholds are multiples of volatility."""

    method: Literal["fixed_horizon", "triple_barrier"] = "fixed_horizon"
    horizon_bars: int = Field(default=4, ge=1, le=10_000)
    up_threshold: float = 0.002
    down_threshold: float = -0.002
    volatility_bars: int | None = Field(default=None, ge=2, le=10_000)

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> LabelSettings | None:
        """A model's `label_config`; None where it is not ours: research code writes what it likes there."""
        if not {"method", "horizon_bars"} <= set(stored):
            return None
        try:
            return cls.model_validate(dict(stored))
        except ValidationError:
            return None

    @model_validator(mode="after")
    def _thresholds_fit_the_method(self) -> LabelSettings:
        if self.down_threshold > self.up_threshold:
            raise ValueError("down_threshold must not be above up_threshold")
        if self.method == "triple_barrier" and not self.down_threshold < 0.0 < self.up_threshold:
            raise ValueError("triple_barrier needs down_threshold below 0 and up_threshold above 0")
        if self.method != "triple_barrier" and self.volatility_bars is not None:
            raise ValueError("volatility_bars belongs to the method triple_barrier")
        return self


class WalkForwardSettings(Section):
    """How the training span is split into folds that go forward in time."""

    mode: Literal["expanding", "rolling"] = "expanding"
    folds: int = Field(default=4, ge=2, le=200)
    train_bars: int | None = Field(default=None, ge=10)
    embargo_bars: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _a_window_rolls(self) -> WalkForwardSettings:
        if self.train_bars is not None and self.mode == "expanding":
            raise ValueError("train_bars is the length of a rolling window; set mode: rolling")
        return self


class MlSettings(Section):
    """The registry, what to train, and which model answers.

    `production_model`: `auto`, or a model_id that is pinned for its own key, as an item of `pins` would; every other
    key goes on with its own pin or production model. `refit`: a training fits its recipe once more, on all bars, and
    registers that as a model of its own beside the one that was measured.
    """

    models_dir: Path = Path("outputs/ml_models")
    production_model: str = Field(default="auto", min_length=1)
    pins: dict[str, str] = Field(default_factory=dict)
    max_models_per_symbol_tf: int | None = Field(default=20, ge=1)
    feature_preset: str = "core"
    model_type: str = "rf"
    seed: int = Field(default=42, ge=0, le=2**32 - 1)
    test_fraction: float = Field(default=0.25, gt=0.0, lt=0.9)
    label: LabelSettings = LabelSettings()
    class_weight: Literal["none", "balanced"] = "none"
    calibration: Literal["none", "sigmoid", "isotonic"] = "none"
    walk_forward: WalkForwardSettings = WalkForwardSettings()
    models: dict[str, dict[str, Any]] = Field(default_factory=lambda: dict(_DEFAULT_MODELS))
    grid_metric: Literal["sharpe", "cum_return", "auc", "log_loss", "brier"] = "sharpe"
    grid_jobs: int = Field(default=-1, ge=-1)
    grids: dict[str, dict[str, list[Any]]] = Field(default_factory=lambda: dict(_DEFAULT_GRIDS))
    refit: bool = False
    max_model_age: Duration | None = None
    stale_models: Literal["serve", "refuse"] = "serve"

    @field_validator("models", "grids")
    @classmethod
    def _of_each_type(
        cls, given: dict[str, dict[str, Any]], info: ValidationInfo
    ) -> dict[str, dict[str, Any]]:
        """A type that is named replaces its default whole; the others keep theirs."""
        return {**(_DEFAULT_MODELS if info.field_name == "models" else _DEFAULT_GRIDS), **given}

    @field_validator("pins")
    @classmethod
    def _pins_name_keys(cls, pins: dict[str, str]) -> dict[str, str]:
        for key, model_id in pins.items():
            Key.parse(key)
            if not model_id:
                raise ValueError(f"{key!r}: a pin is written 'SYMBOL/TIMEFRAME: model_id'")
        return pins

    @field_validator("grid_jobs")
    @classmethod
    def _some_process_works(cls, jobs: int) -> int:
        if jobs == 0:
            raise ValueError("must be -1 (a process a core) or at least 1")
        return jobs

    def pinned_ids(self) -> frozenset[str]:
        """Every model_id that the configuration pins; retention and clean never remove them."""
        always = set() if self.production_model == "auto" else {self.production_model}
        return frozenset(self.pins.values()) | always
