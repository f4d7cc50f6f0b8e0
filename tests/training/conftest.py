"""Settings and bars that train in a moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from signalserve.config.settings import Settings
from signalserve.features.synthetic import synthetic_bars

CONFIG: dict[str, Any] = {
    "ml": {
        "model_type": "rf",
        "walk_forward": {"folds": 2},
        "label": {"horizon_bars": 4, "up_threshold": 0.001, "down_threshold": -0.001},
        "models": {
            "logreg": {"C": 0.1},
            "rf": {"n_estimators": 12, "max_depth": 4, "min_samples_leaf": 20},
            "extra_trees": {"n_estimators": 12, "max_depth": 4},
            "gb": {"n_estimators": 12},
            "hist_gb": {"max_iter": 8, "max_depth": 3},
            "xgb": {"n_estimators": 12, "max_depth": 3},
            "calibrated_rf": {"n_estimators": 8, "max_depth": 4, "cv": 2},
        },
    },
    "trading": {"fee_bps": 1.0, "slippage_bps": 0.0},
}


@pytest.fixture
def settings() -> Settings:
    return Settings(**CONFIG)


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "system.yml"
    path.write_text(yaml.safe_dump(CONFIG), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def bar_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bars") / "SYNTH_15m.csv"
    synthetic_bars("SYNTH", 2500, seed=11).to_csv(path)
    return path
