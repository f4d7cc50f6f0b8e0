"""What an operator's Prometheus reads from a server that works."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from signalserve.client import NotFound
from tests.server.wire.conftest import NAMES, Registry, Server


def scrape(server: Server) -> dict[str, float]:
    assert server.parts is not None
    with urllib.request.urlopen(f"http://127.0.0.1:{server.parts.metrics_port}/metrics") as answer:
        text = answer.read().decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {sample.name + "".join(sample.labels.values()): sample.value for sample in samples}


def test_the_counters_count_what_was_asked_and_the_gauges_say_what_is_served(
    registry: Registry, serve: Callable[..., Server], row: np.ndarray
) -> None:
    server = serve(registry.base, server={"metrics_port": 0})
    before = scrape(server)
    assert before["signalserve_ready"] == 1
    assert before["signalserve_modelsonnx"] == 2
    for _ in range(3):
        server.client.predict("BTCUSDT", "15m", row, feature_names=NAMES)
    with pytest.raises(NotFound):
        server.client.predict("NOPE", "15m", row, feature_names=NAMES)
    with server.client.stream() as stream:
        stream.send("NOPE", "15m", row, feature_names=NAMES)
        assert not next(stream).ok
    result = server.client.promote(registry["b"])
    after = scrape(server)
    assert after["signalserve_answers_total"] - before["signalserve_answers_total"] == 3
    assert after["signalserve_predict_seconds_count"] - before["signalserve_predict_seconds_count"] == 3
    assert after["signalserve_refusals_totalNOT_FOUND"] == 2
    assert after["signalserve_model_swaps_total"] - before["signalserve_model_swaps_total"] == 1
    assert after["signalserve_registry_revision"] == result.registry_revision
