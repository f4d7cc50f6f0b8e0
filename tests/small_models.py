"""Small real models in real run directories, for tests that are about something else."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.linear_model import LogisticRegression

from signalserve.registry import ModelMetadata, ModelRegistryEntry, register_model
from signalserve.registry.sealing import seal

NAMES = ["a", "b", "c", "d", "e"]


def rows(n: int = 300) -> np.ndarray:
    """Reference rows [n, 5]."""
    return np.random.default_rng(0).normal(size=(n, 5))


def fitted(column: int) -> LogisticRegression:
    """A model that follows one column, so that two columns give two scores."""
    X = rows()
    noise = 0.1 * np.random.default_rng(column).normal(size=len(X))
    return LogisticRegression().fit(X, (X[:, column % 5] + noise > 0).astype(int))


def write_run(
    folder: Path, symbol: str, timeframe: str = "15m", model_type: str = "logreg", *, column: int = 0
) -> ModelMetadata:
    """An unsealed run directory, as research code leaves it: model.joblib and meta.json."""
    folder.mkdir(parents=True)
    joblib.dump(fitted(column), folder / "model.joblib")
    meta = ModelMetadata(
        folder.name,
        symbol,
        timeframe,
        model_type,
        created_at="2026-01-01T00:00:00+00:00",
        feature_cols=NAMES,
        metrics={"cum_return": 0.1, "sharpe": 1.5},
    )
    meta.write(folder / "meta.json")
    return meta


def sealed_template(folder: Path, *, column: int = 0) -> Path:
    """A sealed run directory to copy from."""
    meta = write_run(folder, "TEMPLATE", column=column)
    seal(folder, meta, fitted(column), rows())
    return folder


def register_copy(
    template: Path,
    base: Path,
    model_id: str,
    symbol: str = "BTCUSDT",
    timeframe: str = "15m",
    model_type: str = "logreg",
    *,
    created_at: str = "2026-01-01T00:00:00+00:00",
    max_models: int | None = None,
    extra: Mapping[str, Any] | None = None,
    pins: Iterable[str] = (),
) -> ModelRegistryEntry:
    """Register a copy of a sealed folder as a model of its own; quick, since nothing is compiled."""
    hidden = base / f".building-{model_id}"
    base.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(hidden, ignore_errors=True)
    shutil.copytree(template, hidden)
    meta = ModelMetadata(
        model_id,
        symbol,
        timeframe,
        model_type,
        created_at=created_at,
        feature_cols=NAMES,
        extra=dict(extra or {}),
    )
    meta.write(hidden / "meta.json")
    hidden.rename(base / model_id)
    return register_model(meta, base, max_models=max_models, pins=pins)
