"""What to train: every choice made, checked, and frozen before anything is read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError

from signalserve.common.moments import in_utc
from signalserve.common.timeframe import UnknownTimeframeError, bars_per_year
from signalserve.config.ml import LabelSettings, WalkForwardSettings
from signalserve.config.settings import Settings
from signalserve.features.errors import FeatureError
from signalserve.features.pipeline import FeaturePipeline
from signalserve.registry.errors import RegistryError
from signalserve.registry.identifiers import check_name
from signalserve.trading.rules import TradingRules
from signalserve.training.errors import TrainingRequestError
from signalserve.training.models import build_model, canonical_type
from signalserve.training.split import Spans

Params = Mapping[str, Any]


@dataclass(frozen=True)
class TrainRequest:
    """One training run.

    Bars: all of the file, its last `lookback_days`, or the `spans`; where the spans don't say where training
    ends, the last `test_fraction` is the test span. `grid` (parameter -> values) is tried over `params` first,
    and the best by `grid_metric` is trained; None tries nothing. `request_id` is a job's own id: it registers
    one model, however often it is run. `refit`: the recipe is fitted again on all bars, as a second model.
    `config_snapshot` is what meta.json keeps of the configuration. `signing_key` signs its events.
    """

    symbol: str
    timeframe: str
    preset: str
    model_type: str
    params: Params
    seed: int
    base_dir: Path
    ohlcv: Path
    label: LabelSettings
    class_weight: str
    calibration: str
    walk_forward: WalkForwardSettings
    test_fraction: float
    lookback_days: float | None
    spans: Spans
    rules: TradingRules
    grid: Mapping[str, Sequence[Any]] | None
    grid_metric: str
    grid_jobs: int
    keep: int | None
    pins: frozenset[str]
    request_id: str
    config_snapshot: Mapping[str, Any]
    signing_key: Path | None = None
    refit: bool = False

    @classmethod
    def from_settings(
        cls,
        settings: Settings,
        symbol: str,
        timeframe: str = "15m",
        *,
        preset: str | None = None,
        model_type: str | None = None,
        params: Params | None = None,
        seed: int | None = None,
        label: Mapping[str, Any] | None = None,
        output_dir: Path | str | None = None,
        ohlcv: Path | str | None = None,
        lookback_days: float | None = None,
        train_start: datetime | None = None,
        train_end: datetime | None = None,
        test_start: datetime | None = None,
        test_end: datetime | None = None,
        grid: bool = False,
        refit: bool | None = None,
        request_id: str = "",
    ) -> TrainRequest:
        """Take from the configuration what is not given, and check what can be checked without bars.

        Spans are open times of bars, both ends included; a time without a zone is UTC. `params` replaces
        `ml.models` for the type; `grid` tries `ml.grids` for it. What `label` gives goes before `ml.label`; None in it
        is not given.

        Raises:
            TrainingRequestError: a name, a span, the timeframe, the preset, the model type, the label or a
                parameter can't be used.
        """
        ml = settings.ml
        wanted = canonical_type(ml.model_type if model_type is None else model_type)
        request = cls(
            symbol=symbol,
            timeframe=timeframe,
            preset=ml.feature_preset if preset is None else preset,
            model_type=wanted,
            params=dict(_of_type(ml.models, wanted) or {}) if params is None else dict(params),
            seed=ml.seed if seed is None else seed,
            base_dir=ml.models_dir if output_dir is None else Path(output_dir),
            ohlcv=settings.data.ohlcv_file(symbol, timeframe) if ohlcv is None else Path(ohlcv),
            label=_label(ml.label, label or {}),
            class_weight=ml.class_weight,
            calibration=ml.calibration,
            walk_forward=ml.walk_forward,
            test_fraction=ml.test_fraction,
            lookback_days=lookback_days,
            spans=Spans(_utc(train_start), _utc(train_end), _utc(test_start), _utc(test_end)),
            rules=TradingRules.of(settings.trading),
            grid=dict(_of_type(ml.grids, wanted) or {}) if grid else None,
            grid_metric=ml.grid_metric,
            grid_jobs=ml.grid_jobs,
            keep=ml.max_models_per_symbol_tf,
            pins=ml.pinned_ids(),
            request_id=request_id,
            config_snapshot=settings.model_dump(
                mode="json", include={"data", "ml", "trading", "backtest", "live"}
            ),
            signing_key=settings.registry.signing_key,
            refit=ml.refit if refit is None else refit,
        )
        request.check()
        return request

    @property
    def balanced(self) -> bool:
        """Whether the classes get equal weight."""
        return self.class_weight == "balanced"

    def model(self) -> Any:
        """A new estimator, not fitted.

        Raises:
            TrainingRequestError: the type or a parameter is unknown.
        """
        return build_model(
            self.model_type,
            self.params,
            seed=self.seed,
            embargo=self.label.horizon_bars,
            balanced=self.balanced,
            calibration=self.calibration,
        )

    def check(self) -> None:
        """Refuse what can't be run, before anything is written.

        Raises:
            TrainingRequestError: it says which choice and what there is to choose from.
        """
        if not 0 <= self.seed < 2**32:
            raise TrainingRequestError(f"seed is {self.seed}; it must be from 0 to {2**32 - 1}")
        try:
            check_name("symbol", self.symbol)
            check_name("timeframe", self.timeframe)
            check_name("model_type", self.model_type)
            bars_per_year(self.timeframe)
            FeaturePipeline(self.preset)
        except (FeatureError, UnknownTimeframeError, RegistryError) as error:
            raise TrainingRequestError(str(error)) from error
        if self.refit and self.keep == 1:
            raise TrainingRequestError(
                "refit makes two models, and ml.max_models_per_symbol_tf keeps 1: raise it, or leave refit out"
            )
        self.model()
        self._check_spans()
        self._check_grid()

    def _check_spans(self) -> None:
        given = {name: moment for name, moment in vars(self.spans).items() if moment is not None}
        if self.lookback_days is not None:
            if not (math.isfinite(self.lookback_days) and self.lookback_days > 0.0):
                raise TrainingRequestError(f"lookback_days is {self.lookback_days}; it must be above zero")
            if given:
                raise TrainingRequestError(
                    f"lookback_days and {', '.join(given)} exclude one another: give one or the other"
                )
        for (name, moment), (later_name, later) in pairwise(given.items()):
            if moment > later:
                raise TrainingRequestError(
                    f"{later_name} {later.isoformat()} must not be before {name} {moment.isoformat()}"
                )

    def _check_grid(self) -> None:
        if self.grid is None:
            return
        if not self.grid:
            raise TrainingRequestError(
                f"there is no grid for {self.model_type}: say in ml.grids.{self.model_type} what to try"
            )
        empty = [name for name, values in self.grid.items() if not values]
        if empty:
            raise TrainingRequestError(f"ml.grids.{self.model_type}.{empty[0]} has no value to try")
        build_model(
            self.model_type,
            {**{name: values[0] for name, values in self.grid.items()}, **self.params},
            seed=self.seed,
        )


def _label(configured: LabelSettings, given: Mapping[str, Any]) -> LabelSettings:
    chosen = {name: value for name, value in given.items() if value is not None}
    stored = configured.model_dump()
    if chosen.get("method", configured.method) != configured.method:
        stored.pop(
            "volatility_bars"
        )  # belongs to the one method, and nobody can take it back on a command line
    try:
        return LabelSettings.model_validate({**stored, **chosen})
    except ValidationError as error:
        texts = [
            ": ".join([*map(str, item["loc"]), item["msg"].removeprefix("Value error, ")])
            for item in error.errors()
        ]
        raise TrainingRequestError(f"the label can't be made: {'; '.join(texts)}") from error


def _of_type(settings: Mapping[str, Mapping[str, Any]], wanted: str) -> Mapping[str, Any] | None:
    return next((own for name, own in settings.items() if canonical_type(name) == wanted), None)


def _utc(moment: datetime | None) -> pd.Timestamp | None:
    return None if moment is None else pd.Timestamp(in_utc(moment))
