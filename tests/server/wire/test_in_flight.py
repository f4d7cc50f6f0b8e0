"""`server.max_in_flight` bounds the work, whatever brings it, and no kind of it waits behind another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from signalserve.client.errors import from_rpc_error
from signalserve.server import scorer
from signalserve.v1 import prediction_pb2
from tests.server.wire.conftest import Registry, Server, refusal, request
from tests.server.wire.test_bad_input import Counting, with_counting, with_predictor

GOOD = [0.1, 0.2, 0.3, 0.4]
EXHAUSTED = 8
Serve = Callable[..., Server]


def batch(count: int, symbol: str) -> prediction_pb2.PredictBatchRequest:
    return prediction_pb2.PredictBatchRequest(requests=[request(GOOD, symbol=symbol)] * count)


def in_flight(server: Server) -> int:
    assert server.parts is not None
    guard = server.parts.guard
    count: int = server.call(lambda: guard.in_flight)
    return count


def wait_for(server: Server, count: int) -> None:
    """Ask the server's loop until so much is in flight."""
    while in_flight(server) != count:
        pass


class Stream:
    """An open stream whose items are sent one by one."""

    def __init__(self, server: Server) -> None:
        self._to_send: list[prediction_pb2.PredictStreamRequest] = []
        self._turn = threading.Semaphore(0)
        self.answers = server.prediction.PredictStream(self._requests())

    def _requests(self) -> Iterator[prediction_pb2.PredictStreamRequest]:
        while self._turn.acquire() and self._to_send:
            yield self._to_send.pop()

    def send(self, symbol: str = "BTCUSDT") -> None:
        self._to_send.append(prediction_pb2.PredictStreamRequest(request=request(GOOD, symbol=symbol)))
        self._turn.release()

    def next(self) -> prediction_pb2.PredictStreamResponse:
        answer: prediction_pb2.PredictStreamResponse = next(self.answers)
        return answer

    def close(self) -> None:
        self._turn.release()
        assert list(self.answers) == []


def test_items_of_streams_over_the_limit_are_refused_and_their_streams_go_on(
    serve: Serve, registry: Registry
) -> None:
    server = serve(registry.base, server={"max_in_flight": 2})
    slow = with_counting(server, "BTCUSDT")
    streams = [Stream(server) for _ in range(20)]
    streams[0].send()
    assert slow.entered.wait(60)
    for stream in streams[1:]:
        stream.send()
        error = stream.next().error
        assert error.code == EXHAUSTED
        assert {detail.type_url.rpartition(".")[2] for detail in error.details} == {"ErrorInfo", "RetryInfo"}
    # the last place is a call's, and a call that is over the limit is refused too
    assert len(server.prediction.Predict(request(GOOD, symbol="ETHUSDT")).scores) == 1
    blocked = server.prediction.Predict.future(request(GOOD))
    wait_for(server, 2)
    assert refusal(server.prediction.Predict, request(GOOD, symbol="ETHUSDT")).reason == "TOO_MANY_IN_FLIGHT"
    slow.release.set()
    assert blocked.result().HasField("served_time")
    assert streams[0].next().HasField("response")
    for stream in streams:
        stream.send()
        assert stream.next().HasField("response")
        stream.close()
    assert slow.calls == 2 + len(streams)
    assert in_flight(server) == 0


def test_a_batch_on_an_idle_server_is_answered_whatever_the_limit(serve: Serve, registry: Registry) -> None:
    server = serve(registry.base, server={"max_in_flight": 1})
    results = server.prediction.PredictBatch(batch(500, "BTCUSDT")).results
    assert all(result.HasField("response") for result in results)
    assert in_flight(server) == 0


@pytest.mark.parametrize(("limit", "busy", "expected"), [(1, 0, 1), (3, 0, 3), (3, 1, 3), (256, 1, 5)])
def test_a_batch_is_computed_in_as_many_parts_as_there_are_places(
    serve: Serve, registry: Registry, monkeypatch: pytest.MonkeyPatch, limit: int, busy: int, expected: int
) -> None:
    monkeypatch.setattr(scorer, "_CORES", 4)
    server = serve(registry.base, server={"max_in_flight": limit})
    slow = with_counting(server, "BTCUSDT")
    calls = [server.prediction.Predict.future(request(GOOD)) for _ in range(busy)]
    wait_for(server, busy)
    answer = server.prediction.PredictBatch.future(batch(500, "BTCUSDT"))
    wait_for(server, expected)
    slow.release.set()
    assert len(answer.result().results) == 500
    assert all(call.result() for call in calls)
    wait_for(server, 0)


def test_a_healthy_batch_waits_for_no_item_of_a_stream_and_for_no_call(
    serve: Serve, registry: Registry
) -> None:
    server = serve(registry.base)
    slow = with_counting(server, "BTCUSDT")
    streams = [Stream(server) for _ in range(20)]
    for stream in streams:
        stream.send()
    calls = [server.prediction.Predict.future(request(GOOD)) for _ in range(20)]
    wait_for(server, 40)
    results = server.prediction.PredictBatch(batch(100, "ETHUSDT"), timeout=60).results
    assert all(result.HasField("response") for result in results)
    assert in_flight(server) == 40
    slow.release.set()
    assert all(call.result() for call in calls)
    for stream in streams:
        assert stream.next().HasField("response")
        stream.close()


class Turns(Counting):
    """A predictor whose each call waits for a turn of its own."""

    def __init__(self, predictor: Any) -> None:
        super().__init__(predictor)
        self.turns = threading.Semaphore(0)

    def predict(self, matrix: np.ndarray) -> np.ndarray:
        self.entered.set()
        assert self.turns.acquire(timeout=60)
        scores: np.ndarray = self._predictor.predict(matrix)
        return scores


def test_a_long_batch_lets_another_one_go_first_after_each_slice_of_time(
    serve: Serve, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scorer, "_SLICE_SECONDS", 0.0)
    monkeypatch.setattr(scorer, "_CORES", 1)
    server = serve(registry.base)
    slow = with_predictor(server, "BTCUSDT", Turns)
    long = server.prediction.PredictBatch.future(batch(31, "BTCUSDT"))
    assert slow.entered.wait(60)
    short = server.prediction.PredictBatch.future(batch(1, "ETHUSDT"))
    wait_for(server, 2)
    slow.turns.release()
    assert short.result(timeout=60).results[0].HasField("response")
    assert not long.done()
    slow.turns.release(30)
    assert len(long.result().results) == 31


def test_a_cancelled_batch_computes_no_item_more(serve: Serve, registry: Registry) -> None:
    server = serve(registry.base)
    slow = with_counting(server, "BTCUSDT")
    call = server.prediction.PredictBatch.future(batch(200, "BTCUSDT"))
    assert slow.entered.wait(60)
    parts = in_flight(server)
    call.cancel()
    wait_for(server, 0)
    slow.release.set()
    assert server.parts is not None
    server.parts.scorer.close()  # the threads have ended what they were at
    assert 1 <= slow.calls <= parts


def test_a_cancelled_stream_computes_no_item_more(serve: Serve, registry: Registry) -> None:
    server = serve(registry.base)
    slow = with_counting(server, "BTCUSDT")
    asked = [prediction_pb2.PredictStreamRequest(request=request(GOOD)) for _ in range(50)]
    answers = server.prediction.PredictStream(iter(asked))
    assert slow.entered.wait(60)
    answers.cancel()
    wait_for(server, 0)
    slow.release.set()
    assert server.parts is not None
    server.parts.scorer.close()
    assert slow.calls == 1
    with pytest.raises(grpc.RpcError) as caught:
        next(answers)
    assert from_rpc_error(caught.value).code == grpc.StatusCode.CANCELLED
