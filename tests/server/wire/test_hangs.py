"""A load that hangs holds up nothing but its own model: no key, no request, no promote, no exit."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from benchmarks.soak.hanging import Hanging, let_go
from signalserve.client import FailedPrecondition, Prediction, PredictionRequest, Unavailable
from signalserve.registry import Promotion
from signalserve.server.threads import Job, StillRunningError, Threads
from signalserve.v1 import prediction_pb2, registry_pb2
from tests.registries import registry_at
from tests.server.wire.conftest import NAMES, Registry, Server, ServerProcess, request, training_rows
from tests.server.wire.test_drain import health

Serve = Callable[..., Server]

# an hour: what is shown needs no limit; a blink: what is shown is the limit
MORE = ("ADA", "DOT", "BNB")
PATIENT, HASTY = {"load_seconds": 3600.0}, {"load_seconds": 0.5}


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """Whoever opens a model of `hanging` hangs in reading this, until `let_go`."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


@pytest.fixture
def hanging(registry: Registry, fifo: Path) -> Registry:
    """As `registry`, and none of them in production: XRPUSDT/15m: xrp, xrp2; BTCUSDT/15m: hung; ADA, DOT, BNB."""
    fifo.unlink()
    X, y = training_rows()
    for name, symbol in (
        ("xrp", "XRPUSDT"),
        ("xrp2", "XRPUSDT"),
        ("hung", "BTCUSDT"),
        *((name, name) for name in MORE),
    ):
        registry.add(name, symbol, "hanging", Hanging(str(fifo), 0.75).fit(X, y), X)
    os.mkfifo(fifo)
    return registry


@pytest.fixture
def serve(serve: Serve, fifo: Path) -> Any:
    yield serve
    let_go(fifo)


def ask(server: Server, symbol: str, row: np.ndarray, **more: Any) -> Prediction:
    return server.client.predict(symbol, "15m", row, feature_names=NAMES, **more)


def test_a_cold_start_serves_every_model_but_those_that_hang(
    hanging: Registry, serve: Serve, row: np.ndarray, fifo: Path
) -> None:
    hung = [hanging[name] for name in (*MORE, "xrp")]  # more than are opened together
    registry_at(hanging.base).promote([Promotion(model_id) for model_id in hung])
    # theirs are the first rows of the index, so that they take every loader before any other comes
    hanging.edit_index(lambda text: _first(text, hung))
    server = serve(hanging.base, ready=False, server=PATIENT)
    status = server.until(lambda status: len(status.models) == 2)
    assert not status.ready
    assert sorted(item.model_id for item in status.loading) == sorted(hung)
    assert ask(server, "BTCUSDT", row).model_id == hanging["a"]
    assert ask(server, "ETHUSDT", row).model_id == hanging["eth"]
    (item,) = server.client.predict_batch([PredictionRequest("XRPUSDT", "15m", row, feature_names=NAMES)])
    assert item.error is not None
    assert item.error.reason == "LOADING"
    assert [health(server.target, f"{symbol}/15m") for symbol in ("BTCUSDT", "XRPUSDT")] == [1, 2]
    let_go(fifo)
    assert server.until(lambda status: status.ready).loading == ()
    assert ask(server, "XRPUSDT", row).score == 0.75


def _first(index: str, model_ids: list[str]) -> str:
    header, *rows = index.splitlines(keepends=True)
    return "".join([header, *sorted(rows, key=lambda row: row.split(",")[0] not in model_ids)])


def test_a_load_past_its_limit_is_said_and_is_gone_from_the_status_once_it_has_ended(
    hanging: Registry, serve: Serve, row: np.ndarray, fifo: Path
) -> None:
    registry_at(hanging.base).promote([Promotion(hanging["xrp"])])
    server = serve(hanging.base, server=HASTY)
    status = server.until(lambda status: status.load_errors)
    assert status.ready  # one bad model takes the others not away
    assert "server.load_seconds (0.5)" in status.load_errors[0].message
    with pytest.raises(FailedPrecondition) as failed:
        ask(server, "XRPUSDT", row)
    assert failed.value.reason == "MODEL_NOT_SERVABLE"
    let_go(fifo)
    server.until(lambda status: not status.load_errors and len(status.models) == 3)
    assert ask(server, "XRPUSDT", row).score == 0.75


def test_a_promote_of_another_key_is_served_while_a_load_hangs_and_the_hung_key_keeps_its_model(
    hanging: Registry, serve: Serve, row: np.ndarray, fifo: Path
) -> None:
    server = serve(hanging.base, server=PATIENT)
    before = ask(server, "BTCUSDT", row)
    hung = registry_at(hanging.base).promote([Promotion(hanging["hung"])])
    server.until(lambda status: [item.model_id for item in status.loading] == [hanging["hung"]])
    sol = server.client.promote(hanging["sol"])
    assert sol.served
    assert ask(server, "SOLUSDT", row).model_id == hanging["sol"]
    during = ask(server, "BTCUSDT", row)
    # the answer says which revision it is of, and who asks for the newer one is told that it is not there
    assert (during.model_id, during.registry_revision) == (hanging["a"], before.registry_revision)
    newer = PredictionRequest("BTCUSDT", "15m", row, feature_names=NAMES, min_registry_revision=hung.revision)
    (behind,) = server.client.predict_batch([newer])
    assert behind.error is not None
    assert behind.error.reason == "BEHIND"
    let_go(fifo)
    after = ask(server, "BTCUSDT", row, min_registry_revision=hung.revision)
    assert (after.model_id, after.registry_revision) == (hanging["hung"], sol.registry_revision)


def test_an_answer_past_the_limit_is_flagged(
    hanging: Registry, serve: Serve, row: np.ndarray, fifo: Path
) -> None:
    server = serve(hanging.base, server=HASTY)
    registry_at(hanging.base).promote([Promotion(hanging["hung"])])
    server.until(lambda status: status.load_errors)
    answer = ask(server, "BTCUSDT", row)
    assert answer.model_id == hanging["a"]
    assert "NOT_CURRENT" in answer.flags
    let_go(fifo)
    server.until(lambda status: not status.load_errors and server.serving("BTCUSDT") == hanging["hung"])
    assert ask(server, "BTCUSDT", row).flags == ()


def test_requests_that_name_a_model_that_hangs_keep_nobody_else_waiting(
    hanging: Registry, serve: Serve, row: np.ndarray, fifo: Path
) -> None:
    server = serve(hanging.base, server=PATIENT)
    named = [
        server.prediction.Predict.future(
            request(row, symbol="XRPUSDT", model_id=hanging[("xrp", "xrp2")[number % 2]]), timeout=600
        )
        for number in range(40)
    ]
    items = [request(row, symbol="XRPUSDT", model_id=hanging["xrp"]), request(row), request(row)]
    mixed = server.prediction.PredictBatch.future(
        prediction_pb2.PredictBatchRequest(requests=items), timeout=600
    )
    assert server.parts is not None
    guard = server.parts.guard
    while server.call(lambda: guard.in_flight + guard.waiting) < len(named) + 1:
        pass
    # a batch, a large matrix and a model that is not loaded yet: what needs a thread
    batch = server.client.predict_batch([PredictionRequest("BTCUSDT", "15m", row, feature_names=NAMES)] * 100)
    assert all(item.ok for item in batch)
    many = np.tile(row, (20_000, 1))
    assert len(ask(server, "ETHUSDT", many).scores) == len(many)
    assert ask(server, "SOLUSDT", row, model_id=hanging["sol"]).model_id == hanging["sol"]
    let_go(fifo)
    assert {tuple(call.result().scores) for call in named} == {(0.75,)}
    assert [len(result.response.scores) for result in mixed.result().results] == [1, 1, 1]


def test_an_item_that_names_a_model_that_hangs_costs_the_others_of_its_batch_no_answer(
    hanging: Registry, serve: Serve, row: np.ndarray
) -> None:
    server = serve(hanging.base, server=PATIENT)
    naming = PredictionRequest("XRPUSDT", "15m", row, feature_names=NAMES, model_id=hanging["xrp"])
    healthy = PredictionRequest("BTCUSDT", "15m", row, feature_names=NAMES)
    first, second = server.client.predict_batch([naming, healthy], deadline_ms=3_000)
    assert first.error is not None
    assert first.error.reason == "LOADING"
    assert second.result().model_id == hanging["a"]


def test_calls_that_wait_for_a_model_or_a_revision_take_no_place_of_those_that_compute(
    hanging: Registry, serve: Serve, row: np.ndarray
) -> None:
    server = serve(hanging.base, server=PATIENT | {"max_in_flight": 1})
    assert server.parts is not None
    guard = server.parts.guard
    waiting = [
        server.prediction.Predict.future(message, timeout=600)
        for message in (
            request(row, min_registry_revision=10**9),
            request(row, symbol="XRPUSDT", model_id=hanging["xrp"]),
        )
    ]
    while server.call(lambda: guard.waiting) < len(waiting):
        pass
    assert ask(server, "BTCUSDT", row).model_id == hanging["a"]
    for call in waiting:
        call.cancel()
    while server.call(lambda: guard.waiting):
        pass
    assert server.call(lambda: guard.in_flight) == 0


@pytest.mark.parametrize("hanging_loads", [2, 5])
async def test_what_hangs_leaves_threads_for_what_does_not_and_there_is_an_end_to_that(
    hanging_loads: int,
) -> None:
    threads = Threads("some", 2, most=5)
    release = threading.Event()
    hung = [threads.begin(release.wait) for _ in range(hanging_loads)]
    quick = threads.begin(int)
    try:
        if hanging_loads < 5:
            assert await quick.result(3600.0) == 0
        else:
            await asyncio.wait_for(asyncio.to_thread(_all_begun, hung), 60)
            with pytest.raises(StillRunningError):
                await quick.result(0.05)
    finally:
        release.set()
    assert await quick.result(3600.0) == 0
    threads.close()


def _all_begun(jobs: list[Job[bool]]) -> None:
    while any(job.began is None for job in jobs):
        pass


def test_a_named_load_past_its_limit_is_unavailable_and_an_item_that_names_it_fails_alone(
    hanging: Registry, serve: Serve, row: np.ndarray, fifo: Path
) -> None:
    server = serve(hanging.base, server=HASTY)
    naming = PredictionRequest("XRPUSDT", "15m", row, feature_names=NAMES, model_id=hanging["xrp"])
    healthy = PredictionRequest("BTCUSDT", "15m", row, feature_names=NAMES)
    first, second = server.client.predict_batch([naming, healthy])
    assert isinstance(first.error, Unavailable)
    assert (first.error.reason, "load_seconds" in str(first.error)) == ("LOADING", True)
    assert second.ok
    let_go(fifo)
    # UNAVAILABLE is asked again by the client: it is served as soon as it has loaded
    assert ask(server, "XRPUSDT", row, model_id=hanging["xrp"]).score == 0.75


@pytest.mark.parametrize("force", [False, True])
def test_a_model_that_hangs_is_not_promoted(
    hanging: Registry, serve: Serve, row: np.ndarray, fifo: Path, force: bool
) -> None:
    server = serve(hanging.base, server=HASTY)
    before = server.client.status().registry_revision
    with pytest.raises(Unavailable, match="load_seconds"):
        server.client.promote(hanging["hung"], force=force, reason="a test")
    assert registry_at(hanging.base).state.revision == before
    assert ask(server, "BTCUSDT", row).model_id == hanging["a"]
    let_go(fifo)
    while True:
        try:
            assert server.client.promote(hanging["hung"]).served
            break
        except Unavailable as error:  # the load that hung may not have ended yet
            assert "load_seconds" in str(error)
    assert ask(server, "BTCUSDT", row).score == 0.75


def test_sigterm_ends_a_server_whose_loads_and_promotes_hang(
    hanging: Registry, serve_process: Callable[..., ServerProcess], row: np.ndarray, fifo: Path
) -> None:
    process = serve_process(hanging.base, server=PATIENT | {"drain_seconds": 0.5})
    with grpc.insecure_channel(process.target) as channel:
        from signalserve.v1 import prediction_service_pb2_grpc, registry_service_pb2_grpc

        prediction = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        changes = registry_service_pb2_grpc.RegistryServiceStub(channel)
        waiting = [
            prediction.Predict.future(request(row, symbol="XRPUSDT", model_id=hanging[name]), timeout=600)
            for name in ("xrp", "xrp2")
        ]
        waiting.append(
            changes.Promote.future(
                registry_pb2.PromoteRequest(promotions=[registry_pb2.Promotion(model_id=hanging["hung"])]),
                timeout=600,
            )
        )
        registry_at(hanging.base).promote([Promotion(hanging["xrp"])])
        ended = threading.Thread(target=process.terminate)
        ended.start()
        ended.join(60)
        assert not ended.is_alive()
        assert process.process.returncode == 0
        for call in waiting:
            with pytest.raises(grpc.RpcError):
                call.result()
    let_go(fifo)
