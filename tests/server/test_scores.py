"""What comes over gRPC is what the fitted model says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest

from signalserve.client import PredictionRequest
from signalserve.registry import ModelMetadata, Promotion, new_run, register_model
from signalserve.registry.sealing import seal
from tests.predictors.conftest import MODELS, NAMES, fitted, training_data
from tests.predictors.test_models import native, threshold_rows
from tests.registries import registry_at
from tests.server.conftest import serving

__all__ = ["fitted"]


@pytest.fixture(scope="module")
def every_model(
    tmp_path_factory: pytest.TempPathFactory, fitted: dict[str, Any]
) -> tuple[Path, dict[str, Any]]:
    """A registry with one model type a symbol, all in production."""
    base = tmp_path_factory.mktemp("every") / "registry"
    ids = []
    for name in MODELS:
        with new_run(base, name.upper(), "15m", name) as run:
            meta = ModelMetadata(run.model_id, name.upper(), "15m", name, feature_cols=NAMES)
            meta.write(run.path / "meta.json")
            joblib.dump(fitted[name], run.path / "model.joblib")
            seal(run.path, meta, fitted[name], training_data()[0])
            run.commit()
        register_model(meta, base, pins=())
        ids.append(run.model_id)
    registry_at(base).promote([Promotion(model_id) for model_id in ids])
    return base, fitted


async def test_every_model_type_gives_its_native_scores_by_every_call(
    every_model: tuple[Path, dict[str, Any]],
) -> None:
    base, models = every_model
    X = training_data()[0]
    async with serving(base) as (client, _):
        listed = {model.symbol: model for model in await client.list_models()}
        for name, model in models.items():
            rows = np.vstack([X[:100], threshold_rows(model, X)])
            expected = native(model, rows)
            scale = max(1e-12, float(np.sqrt(np.mean(expected**2)))) if "regressor" in name else 1.0
            got = (await client.predict(name.upper(), "15m", rows, feature_names=NAMES)).scores
            assert np.max(np.abs(got - expected)) <= 1e-6 * scale, name
            batch = await client.predict_batch(
                PredictionRequest(name.upper(), "15m", row, feature_names=NAMES) for row in rows[-20:]
            )
            singles = np.array([item.result().score for item in batch])
            assert np.max(np.abs(singles - expected[-20:])) <= 1e-6 * scale, name
            async with client.stream(deadline_ms=20_000) as stream:
                for row, want in zip(rows[-20:], expected[-20:], strict=True):
                    await stream.send(name.upper(), "15m", row, feature_names=NAMES)
                    assert abs((await anext(stream)).result().score - want) <= 1e-6 * scale, name
            assert listed[name.upper()].served
            assert bool(listed[name.upper()].engine_reason) == (listed[name.upper()].engine == "native")
