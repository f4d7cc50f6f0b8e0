"""What an operator's Prometheus reads from a server that works."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from signalserve.client import NotFound
from signalserve.v1 import prediction_pb2
from tests.server.wire.conftest import NAMES, Registry, Server, refusal, request


def scrape(server: Server) -> dict[str, float]:
    assert server.parts is not None
    with urllib.request.urlopen(f"http://127.0.0.1:{server.parts.metrics_port}/metrics") as answer:
        text = answer.read().decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {" ".join([sample.name, *sample.labels.values()]): sample.value for sample in samples}


def test_the_counters_count_what_was_asked_and_the_gauges_say_what_is_served(
    registry: Registry, serve: Callable[..., Server], row: np.ndarray
) -> None:
    server = serve(registry.base, server={"metrics_port": 0})
    before = scrape(server)
    assert before["signalserve_ready"] == 1
    assert before["signalserve_models onnx"] == 2
    for _ in range(3):
        server.client.predict("BTCUSDT", "15m", row, feature_names=NAMES)
    with pytest.raises(NotFound):
        server.client.predict("NOPE", "15m", row, feature_names=NAMES)
    with server.client.stream() as stream:
        stream.send("NOPE", "15m", row, feature_names=NAMES)
        assert not next(stream).ok
    result = server.client.promote(registry["b"])
    after = scrape(server)
    for rpc, answers in (("Predict", 3), ("PredictStream", 0), ("Promote", 1)):
        name = f"signalserve_answers_total {rpc}"
        assert after[name] - before[name] == answers, rpc
    assert after["signalserve_predict_seconds_count"] - before["signalserve_predict_seconds_count"] == 3
    for rpc in ("Predict", "PredictStream"):
        assert after[f"signalserve_refusals_total NOT_FOUND {rpc}"] == 1
    assert sum(value for name, value in after.items() if "refusals_total NOT_FOUND " in name) == 2
    assert after["signalserve_model_swaps_total"] - before["signalserve_model_swaps_total"] == 1
    assert after["signalserve_registry_revision"] == result.registry_revision


def test_each_item_of_a_batch_and_of_a_stream_is_counted_once_under_its_rpc(
    registry: Registry, serve: Callable[..., Server], row: np.ndarray
) -> None:
    server = serve(registry.base, server={"metrics_port": 0, "max_batch_requests": 3})
    good, bad = request(row), request(row, symbol="NOPE")
    server.prediction.PredictBatch(prediction_pb2.PredictBatchRequest(requests=[good, bad, good]))
    refusal(server.prediction.PredictBatch, prediction_pb2.PredictBatchRequest())
    sent = [prediction_pb2.PredictStreamRequest(request=item) for item in (good, good, bad)]
    assert len(list(server.prediction.PredictStream(iter(sent)))) == 3
    after = scrape(server)
    counted = {
        name.removeprefix("signalserve_"): value
        for name, value in after.items()
        if value and name.startswith(("signalserve_answers_total", "signalserve_refusals_total"))
    }
    counted.pop("answers_total WatchServingStatus")  # by it the server was awaited
    assert counted == {
        "answers_total PredictBatch": 2,
        "refusals_total NOT_FOUND PredictBatch": 1,
        "refusals_total INVALID_ARGUMENT PredictBatch": 1,
        "answers_total PredictStream": 2,
        "refusals_total NOT_FOUND PredictStream": 1,
    }
