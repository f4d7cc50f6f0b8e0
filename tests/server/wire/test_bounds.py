"""What requests leave behind in a server is bounded by bytes, whatever they hold."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from signalserve.client import InvalidArgument
from signalserve.server import rows
from signalserve.server.orders import OrderCache
from signalserve.v1 import registry_pb2
from tests.server.wire.conftest import NAMES, Registry, Server, refusal, request

GOOD = [0.1, 0.2, 0.3, 0.4]
MEGABYTE = 1024 * 1024


def test_many_extra_names_leave_nothing_behind(serve: Callable[..., Server], registry: Registry) -> None:
    server = serve(registry.base, server={"max_features": 20_004})
    before = rows.orders.bytes_held
    for call in range(5):
        extra = [f"extra_{call}_{number}" for number in range(20_000)]
        asked = request(GOOD + [0.0] * len(extra), feature_names=NAMES + extra)
        assert len(server.prediction.Predict(asked).scores) == 1
    assert rows.orders.bytes_held == before


def test_ever_new_orders_of_names_stay_within_a_number_of_bytes_and_keep_the_one_in_use(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = OrderCache(most_bytes=MEGABYTE)
    monkeypatch.setattr(rows, "orders", cache)
    turned = request(GOOD[::-1], feature_names=NAMES[::-1])
    expected = list(server.prediction.Predict(request(GOOD)).scores)
    dice = random.Random(5)
    largest = 0
    for _ in range(120):
        extra = [f"{dice.random()}" + "x" * 200 for _ in range(60)]
        asked = request(GOOD + [0.0] * 60, feature_names=NAMES + extra)
        assert list(server.prediction.Predict(asked).scores) == expected
        assert list(server.prediction.Predict(turned).scores) == expected
        largest = max(largest, cache.bytes_held)
    assert 0.9 * MEGABYTE < largest <= MEGABYTE
    held = server.parts.state.snapshot.by_key if server.parts is not None else {}
    model = next(served for key, served in held.items() if key.symbol == "BTCUSDT")
    assert cache.get(model.predictor.schema_hash, tuple(NAMES[::-1])) is not None


def test_a_model_s_own_width_is_allowed_whatever_the_limit(
    serve: Callable[..., Server], registry: Registry
) -> None:
    server = serve(registry.base, server={"max_features": 2})
    assert len(server.prediction.Predict(request(GOOD)).scores) == 1
    error = refusal(server.prediction.Predict, request([*GOOD, 0.5], feature_names=[*NAMES, "x"]))
    assert (error.reason, error.metadata) == ("TOO_MANY_FEATURES", {"features": "5", "max_features": "4"})


def test_a_long_request_id_gets_into_no_log(server: Server, registry: Registry) -> None:
    message = registry_pb2.PromoteRequest(
        promotions=[registry_pb2.Promotion(model_id=registry["b"])], request_id="x" * 257
    )
    error = refusal(server.registry.Promote, message)
    assert (type(error), error.reason) == (InvalidArgument, "INVALID_REQUEST_ID")
    assert server.serving("BTCUSDT") == registry["a"]
