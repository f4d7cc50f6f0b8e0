"""Over the wire, too, the score is the probability of the class that meta.json declares."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import joblib
import numpy as np
import pytest
import xgboost
from sklearn.ensemble import RandomForestClassifier

from signalserve.client import InvalidArgument
from signalserve.registry import ModelMetadata, Promotion, list_models, register_model
from signalserve.registry.errors import DeclarationError
from tests.predictors.conftest import NAMES, training_data
from tests.registries import registry_at
from tests.server.wire.conftest import Server

Serve = Callable[..., Server]

X, Y, _ = training_data()


def run(folder: Path, model: object, symbol: str) -> ModelMetadata:
    folder.mkdir(parents=True)
    joblib.dump(model, folder / "model.joblib")
    meta = ModelMetadata(folder.name, symbol, "15m", "rf", feature_cols=NAMES)
    meta.write(folder / "meta.json")
    return meta


def test_a_model_of_long_and_short_registers_once_it_is_said_which_is_up_and_is_served_so(
    tmp_path: Path, serve: Serve
) -> None:
    base = tmp_path / "registry"
    model = RandomForestClassifier(10, max_depth=5, random_state=0).fit(X, np.where(Y == 1, "long", "short"))
    meta = run(base / "m", model, "BTCUSDT")
    with pytest.raises(DeclarationError, match="positive_class"):
        register_model(meta, base, model=model, reference=X)
    assert list_models(base) == []
    path = base / "m" / "meta.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"positive_class": "long"}))
    register_model(ModelMetadata.read(path), base, model=model, reference=X)
    registry_at(base).promote([Promotion("m")])
    server = serve(base)
    scores = server.client.predict("BTCUSDT", "15m", X, feature_names=NAMES).scores
    assert np.max(np.abs(scores - model.predict_proba(X)[:, 0])) <= 1e-6


def test_a_dead_feed_gets_no_score_of_a_model_that_never_saw_a_missing_value(
    tmp_path: Path, serve: Serve
) -> None:
    base = tmp_path / "registry"
    holes = X.copy()
    holes[::5, 2] = np.nan
    for symbol, rows in {"WHOLE": X, "HOLES": holes}.items():
        model = xgboost.XGBClassifier(n_estimators=5, n_jobs=1).fit(rows, Y)
        register_model(run(base / symbol, model, symbol), base, model=model, reference=rows)
    registry_at(base).promote([Promotion("WHOLE"), Promotion("HOLES")])
    server = serve(base)
    with pytest.raises(InvalidArgument) as caught:
        server.client.predict("WHOLE", "15m", holes[:1], feature_names=NAMES)
    assert caught.value.reason == "NAN_VALUE"
    scores = server.client.predict("HOLES", "15m", holes, feature_names=NAMES).scores
    assert np.max(np.abs(scores - model.predict_proba(holes)[:, 1])) <= 1e-6
