"""Scores over the wire are the model's own."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client import PredictionRequest
from registry import promote_model
from tests.predictors.conftest import MODELS, NAMES, training_data
from tests.predictors.test_models import NATIVE, native, threshold_rows
from tests.server.conftest import Server, save_model, settings_of


@pytest.fixture(scope="module")
def fitted() -> dict[str, Any]:
    X, y, values = training_data()
    return {name: make(X, y, values) for name, make in MODELS.items()}


@pytest.fixture(scope="module")
def every_model(
    fitted: dict[str, Any], tmp_path_factory: pytest.TempPathFactory, loop: Any
) -> Iterator[Server]:
    """A server with one symbol a model type."""
    base = tmp_path_factory.mktemp("every") / "models"
    X, _, _ = training_data()
    for name, model in fitted.items():
        promote_model(save_model(base, name.upper(), name, model, X, NAMES), base_dir=base)
    server = Server(settings_of(base), loop)
    server.until(lambda status: status.ready)
    yield server
    server.close()


def rows_of(model: Any) -> np.ndarray:
    """Random rows, and rows on every split and one ulp to either side."""
    X, _, _ = training_data()
    wide = np.random.default_rng(1).normal(size=(100, 8)) * X.std(axis=0)
    return np.vstack([X[:100], wide, threshold_rows(model, X)])


def check(scores: np.ndarray, model: Any, rows: np.ndarray) -> None:
    expected = native(model, rows)
    classifier = hasattr(model, "predict_proba") or type(model).__name__ == "Booster"
    scale = 1.0 if classifier else float(np.sqrt(np.mean(native(model, rows_of(model)) ** 2)))
    assert np.max(np.abs(scores - expected)) <= 1e-6 * scale


@pytest.mark.parametrize("name", MODELS)
def test_predict_gives_the_native_scores_threshold_rows_included(
    name: str, every_model: Server, fitted: dict[str, Any]
) -> None:
    rows = rows_of(fitted[name])
    answer = every_model.client.predict(name.upper(), "15m", rows, feature_names=NAMES)
    check(answer.scores, fitted[name], rows)
    by_hash = every_model.client.predict(name.upper(), "15m", rows[:3], schema_hash=answer.schema_hash)
    check(by_hash.scores, fitted[name], rows[:3])


@pytest.mark.parametrize("name", MODELS)
def test_a_stream_gives_the_native_scores_row_by_row(
    name: str, every_model: Server, fitted: dict[str, Any]
) -> None:
    rows = rows_of(fitted[name])
    rows = rows[:: max(1, len(rows) // 60)]
    with every_model.client.stream(deadline_ms=60_000) as stream:
        for row in rows:
            stream.send(name.upper(), "15m", row, feature_names=NAMES)
        stream.close()
        items = list(stream)
    assert [item.sequence for item in items] == list(range(1, len(rows) + 1))
    check(np.array([item.result().score for item in items]), fitted[name], rows)


def test_one_batch_gives_the_native_scores_of_every_model(
    every_model: Server, fitted: dict[str, Any]
) -> None:
    rows = {name: rows_of(model)[-400:] for name, model in fitted.items()}
    answers = every_model.client.predict_batch(
        [PredictionRequest(name.upper(), "15m", rows[name], feature_names=NAMES) for name in fitted]
    )
    for name, item in zip(fitted, answers, strict=True):
        check(item.result().scores, fitted[name], rows[name])


def test_the_status_says_which_engine_serves_and_why(every_model: Server) -> None:
    models = {item.symbol: item for item in every_model.client.status().models}
    assert {name for name in MODELS if models[name.upper()].engine == "native"} == NATIVE
    assert all(bool(item.engine_reason) == (item.engine == "native") for item in models.values())


def test_a_value_outside_the_training_range_is_flagged(
    every_model: Server, fitted: dict[str, Any], tmp_path: Path
) -> None:
    X, _, _ = training_data()
    predict: Callable[..., Any] = every_model.client.predict
    assert predict("LOGREG", "15m", X[0], feature_names=NAMES).flags == ()
    assert predict("LOGREG", "15m", X[0] + 1e6, feature_names=NAMES).flags == ("OUT_OF_RANGE",)
