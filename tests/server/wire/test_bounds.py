"""What requests leave behind in a server is bounded by bytes, whatever they hold."""

from __future__ import annotations

import queue
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import grpc
import pytest

from signalserve.client import InvalidArgument, ResourceExhausted
from signalserve.client.errors import from_rpc_error
from signalserve.server import rows
from signalserve.server.orders import OrderCache
from signalserve.v1 import prediction_pb2, registry_pb2
from tests.server.conftest import ROOT
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


class OpenStream:
    """A stream that is kept open; `ask` sends a row and reads the answer."""

    def __init__(self, server: Server) -> None:
        self._messages: queue.Queue[prediction_pb2.PredictStreamRequest | None] = queue.Queue()
        self._answers = server.prediction.PredictStream(iter(self._messages.get, None))

    def ask(self) -> int:
        self._messages.put(prediction_pb2.PredictStreamRequest(request=request(GOOD)))
        return len(next(self._answers).response.scores)

    def close(self) -> None:
        """End the stream and wait until the server has."""
        self._messages.put(None)
        assert list(self._answers) == []


def test_more_streams_than_the_limit_are_turned_away_and_told_when_to_come_again(
    serve: Callable[..., Server], registry: Registry
) -> None:
    server = serve(registry.base, server={"max_streams": 2})
    wait_for_streams(server, 0)  # the fixture's own
    first, second = OpenStream(server), OpenStream(server)
    assert (first.ask(), second.ask()) == (1, 1)
    third = OpenStream(server)
    with pytest.raises(grpc.RpcError) as caught:
        third.ask()
    error = from_rpc_error(caught.value)
    assert (type(error), error.reason, error.retry_after) == (ResourceExhausted, "TOO_MANY_STREAMS", 0.05)
    # unary calls and the streams that are open go on, and a place that is free again is taken
    assert len(server.prediction.Predict(request(GOOD)).scores) == 1
    first.close()
    fourth = OpenStream(server)
    assert (fourth.ask(), second.ask()) == (1, 1)
    second.close()
    fourth.close()


CLIENT = """
import sys
from signalserve.client import SignalClient
with SignalClient(sys.argv[1]) as client, client.stream() as stream:
    stream.send("BTCUSDT", "15m", [0.1, 0.2, 0.3, 0.4], feature_names=sys.argv[2].split(","))
    next(iter(stream))
    print("open", flush=True)
    sys.stdin.read()
"""


def test_the_stream_of_a_client_that_gives_no_sign_of_life_ends(
    serve: Callable[..., Server], registry: Registry
) -> None:
    server = serve(registry.base, server={"keepalive_seconds": 0.2})
    command = [sys.executable, "-c", CLIENT, server.target, ",".join(NAMES)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "open\n"
        wait_for_streams(server, 1)
        # its kernel still acknowledges for it, and HTTP/2 does not
        client.send_signal(signal.SIGSTOP)
        try:
            wait_for_streams(server, 0)
        finally:
            client.kill()


def wait_for_streams(server: Server, count: int) -> None:
    """Until so many streams are open."""
    guard, until = server.parts.guard, time.monotonic() + 60  # type: ignore[union-attr]
    while server.call(lambda: len(guard.streams)) != count:
        assert time.monotonic() < until, "it stays otherwise"
