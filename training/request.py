"""What to train: every choice made, checked, and frozen before anything is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config.ml import LabelSettings
from config.settings import Settings
from features.errors import FeatureError
from features.pipeline import FeaturePipeline
from features.timeframe import bars_per_year
from registry.errors import RegistryError
from registry.identifiers import check_name
from training.errors import TrainingRequestError
from training.models import build_model, canonical_type


@dataclass(frozen=True)
class TrainRequest:
    """One training run.

    `test_fraction` is a share of the usable bars; costs are basis points a side; `config_snapshot` is what
    meta.json keeps of the configuration.
    """

    symbol: str
    timeframe: str
    preset: str
    model_type: str
    params: Mapping[str, Any]
    seed: int
    base_dir: Path
    ohlcv: Path
    label: LabelSettings
    test_fraction: float
    fee_bps: float
    slippage_bps: float
    proba_entry: float
    proba_exit: float
    keep: int | None
    pins: frozenset[str]
    config_snapshot: Mapping[str, Any]

    @classmethod
    def from_settings(
        cls,
        settings: Settings,
        symbol: str,
        timeframe: str = "15m",
        *,
        preset: str | None = None,
        model_type: str | None = None,
        seed: int | None = None,
        output_dir: Path | str | None = None,
        ohlcv: Path | str | None = None,
    ) -> TrainRequest:
        """Take from the configuration what is not given, and check what can be checked without bars.

        Raises:
            TrainingRequestError: a name, the timeframe, the preset, the model type or a parameter can't be used.
        """
        ml = settings.ml
        request = cls(
            symbol=symbol,
            timeframe=timeframe,
            preset=ml.feature_preset if preset is None else preset,
            model_type=canonical_type(ml.model_type if model_type is None else model_type),
            params=_params(ml.models, ml.model_type if model_type is None else model_type),
            seed=ml.seed if seed is None else seed,
            base_dir=ml.models_dir if output_dir is None else Path(output_dir),
            ohlcv=settings.data.ohlcv_file(symbol, timeframe) if ohlcv is None else Path(ohlcv),
            label=ml.label,
            test_fraction=ml.test_fraction,
            fee_bps=settings.backtest.fee_bps,
            slippage_bps=settings.backtest.slippage_bps,
            proba_entry=settings.live.proba_entry,
            proba_exit=settings.live.proba_exit,
            keep=ml.max_models_per_symbol_tf,
            pins=ml.pinned_ids(),
            config_snapshot=settings.model_dump(mode="json", include={"data", "ml", "backtest", "live"}),
        )
        request.check()
        return request

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
        except (FeatureError, RegistryError) as error:
            raise TrainingRequestError(str(error)) from error
        build_model(self.model_type, self.params, seed=self.seed)


def _params(models: Mapping[str, Mapping[str, Any]], model_type: str) -> Mapping[str, Any]:
    wanted = canonical_type(model_type)
    return next((dict(params) for name, params in models.items() if canonical_type(name) == wanted), {})
