"""A score that is no finite number is the model's fault and never an answer; the items beside it are answered."""

from __future__ import annotations

import json
from collections.abc import Callable

import grpc
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from signalserve.client import SignalClient, SignalServeError
from signalserve.registry import promote_model
from signalserve.v1 import prediction_pb2
from tests.registries import gate_of
from tests.server.wire.conftest import (
    LONG_MS,
    NAMES,
    Registry,
    Server,
    ServerProcess,
    refusal,
    request,
    training_rows,
)

GOOD = [0.1, 0.2, 0.3, 0.4]
HUGE = [
    1e308,
    1e308,
    1e308,
    1e308,
]  # finite, as inputs must be; scaled they are infinite, and some weights negative


@pytest.fixture
def scaled(registry: Registry) -> Registry:
    """The registry with SCALED/15m in production: a scaler and a logistic regression, in float64."""
    X, y = training_rows()
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(0.01 * X, y)
    registry.add("scaled", "SCALED", "logreg", model, 0.01 * X)
    promote_model(registry["scaled"], base_dir=registry.base, gate=gate_of())
    return registry


def test_one_row_and_many_are_refused_with_the_model_s_name_and_nothing_of_its_inside(
    serve: Callable[..., Server], scaled: Registry
) -> None:
    server = serve(scaled.base)
    for values, bad in ((HUGE, 0), (GOOD * 2 + HUGE + GOOD, 2), (GOOD * 30_000 + HUGE, 30_000)):
        error = refusal(server.prediction.Predict, request(values, symbol="SCALED"))
        assert (error.code, error.reason) == (grpc.StatusCode.INTERNAL, "NON_FINITE_SCORE")
        assert error.metadata["model_id"] == scaled["scaled"]
        assert error.metadata["row"] == str(bad)
        assert error.message.startswith("the model's score is not finite")
        assert error.metadata["incident"] in error.message
        assert "nan" not in error.message
    assert np.isfinite(server.prediction.Predict(request(GOOD, symbol="SCALED")).scores[0])


def test_the_other_items_of_a_batch_and_of_a_stream_are_answered(
    serve: Callable[..., Server], scaled: Registry
) -> None:
    server = serve(scaled.base)
    asked = [
        request(values, symbol=symbol, sequence=number)
        for number, (symbol, values) in enumerate(
            [("SCALED", GOOD), ("SCALED", HUGE), ("BTCUSDT", GOOD), ("SCALED", HUGE), ("SCALED", GOOD)]
        )
    ]
    batch = server.prediction.PredictBatch(prediction_pb2.PredictBatchRequest(requests=asked)).results
    stream = list(
        server.prediction.PredictStream(
            iter([prediction_pb2.PredictStreamRequest(request=item) for item in asked])
        )
    )
    for results in (batch, stream):
        assert [item.HasField("error") for item in results] == [False, True, False, True, False]
        assert {item.error.code for item in results if item.HasField("error")} == {13}
        assert all(np.isfinite(item.response.scores).all() for item in results)


def test_the_id_stands_in_the_log_beside_the_details(
    serve_process: Callable[..., ServerProcess], scaled: Registry
) -> None:
    process = serve_process(scaled.base)
    with (
        SignalClient(process.target, deadline_ms=LONG_MS) as client,
        pytest.raises(SignalServeError) as caught,
    ):
        client.predict("SCALED", "15m", np.array(HUGE), feature_names=NAMES)
    assert process.terminate() == 0
    lines = [json.loads(line) for line in process.log.read_text().splitlines()]
    (line,) = [line for line in lines if line.get("incident") == caught.value.metadata["incident"]]
    assert (line["event"], line["model_id"]) == ("model.broken_answer", scaled["scaled"])
    assert "no finite number" in line["why"]
