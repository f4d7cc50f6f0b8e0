"""Several workers on one port answer as one server: a change is answered once all of them serve it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc
import numpy as np
import psutil
import pytest

from signalserve.client import SignalClient, SignalServeError
from signalserve.registry import Promotion
from signalserve.v1 import (
    prediction_service_pb2_grpc,
    serving_status_pb2,
)
from tests.registries import registry_at
from tests.server.wire.conftest import LONG_MS, NAMES, Registry, ServerProcess, request
from tests.server.wire.test_drain import logged

ServeProcess = Callable[..., ServerProcess]

# so long between two looks that only what the workers tell each other brings a change about
DEAF = {"poll_ms": 3_600_000}


@contextmanager
def connected(process: ServerProcess) -> Iterator[prediction_service_pb2_grpc.PredictionServiceStub]:
    """A connection of its own, to whichever worker the kernel gives."""
    with grpc.insecure_channel(process.target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


def status_of(stub: prediction_service_pb2_grpc.PredictionServiceStub) -> serving_status_pb2.ServingStatus:
    return stub.GetServingStatus(serving_status_pb2.GetServingStatusRequest(), timeout=60).status


def workers_of(process: ServerProcess) -> list[psutil.Process]:
    children = psutil.Process(process.process.pid).children()
    living = [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
    return [child for child in living if "spawn_main" in " ".join(child.cmdline())]


def test_once_a_promote_has_returned_no_worker_answers_with_the_model_before(
    registry: Registry, serve_process: ServeProcess, row: np.ndarray
) -> None:
    process = serve_process(registry.base, "--workers", "3", server=DEAF)
    with SignalClient(process.target, deadline_ms=LONG_MS, read_deadline_ms=LONG_MS) as client:
        for name in ("b", "c", "a", "b"):
            result = client.promote(registry[name], force=True, reason="a test", deadline_ms=LONG_MS)
            assert (result.served, result.lagging) == (True, ())
            numbers = set()
            while numbers != {0, 1, 2}:
                with connected(process) as stub:
                    answer = stub.Predict(request(row), timeout=60)
                    assert (answer.model_id, answer.registry_revision) == (
                        registry[name],
                        result.registry_revision,
                    )
                    numbers.add(status_of(stub).worker)
        assert client.rollback([("BTCUSDT", "15m")], "a test", deadline_ms=LONG_MS).served
        for _ in range(12):
            with connected(process) as stub:
                assert stub.Predict(request(row), timeout=60).model_id == registry["a"]


def test_a_worker_that_does_not_serve_a_promote_in_time_is_named(
    registry: Registry, serve_process: ServeProcess, row: np.ndarray
) -> None:
    process = serve_process(registry.base, "--workers", "2")
    with SignalClient(process.target, deadline_ms=LONG_MS, read_deadline_ms=LONG_MS) as client:
        mine = client.status()
        (other,) = (worker.pid for worker in workers_of(process) if worker.pid != mine.process_id)
        os.kill(other, signal.SIGSTOP)
        try:
            result = client.promote(registry["b"], deadline_ms=3_000)
        finally:
            os.kill(other, signal.SIGCONT)
        assert not result.served
        assert result.served_revision == result.registry_revision
        assert [(item.process_id, item.worker) for item in result.lagging] == [(other, 1 - mine.worker)]
        again = client.promote(registry["a"], force=True, reason="a test", deadline_ms=LONG_MS)
        assert (again.served, again.lagging) == (True, ())
    for _ in range(8):
        with connected(process) as stub:
            assert stub.Predict(request(row), timeout=60).model_id == registry["a"]


def test_a_drained_worker_costs_nobody_an_answer_under_a_load_with_streams(
    registry: Registry, serve_process: ServeProcess, row: np.ndarray
) -> None:
    process = serve_process(registry.base, "--workers", "2", server={"drain_seconds": 3600.0})
    over = threading.Event()
    answered = [threading.Semaphore(0) for _ in range(8)]
    failed: list[SignalServeError] = []

    def ask(done: threading.Semaphore) -> None:
        with SignalClient(process.target, deadline_ms=LONG_MS) as client:
            while not over.is_set():
                try:
                    client.predict("BTCUSDT", "15m", row, feature_names=NAMES)
                except SignalServeError as error:
                    failed.append(error)
                done.release()

    def ask_by_stream(done: threading.Semaphore) -> None:
        with (
            SignalClient(process.target, deadline_ms=LONG_MS) as client,
            client.stream(reconnect=True) as stream,
        ):
            while not over.is_set():
                stream.send("BTCUSDT", "15m", row, feature_names=NAMES)
                item = next(stream)
                if item.error is not None:
                    failed.append(item.error)
                done.release()

    askers = [
        threading.Thread(target=(ask, ask_by_stream)[number % 2], args=(done,))
        for number, done in enumerate(answered)
    ]
    for asker in askers:
        asker.start()
    try:
        for done in answered:
            assert done.acquire(timeout=60)
        drained = workers_of(process)[0]
        drained.terminate()
        psutil.wait_procs([drained], timeout=60)
        # every one of them is answered by who is left
        for done in answered:
            for _ in range(50):
                assert done.acquire(timeout=60)
    finally:
        over.set()
        for asker in askers:
            asker.join()
    assert failed == []


def kill(worker: psutil.Process) -> None:
    """SIGKILL; its port is the others' by the end."""
    worker.kill()
    psutil.wait_procs([worker], timeout=60)


@pytest.mark.parametrize("mended", [True, False])
def test_a_worker_that_can_not_serve_what_another_one_does_keeps_off_the_port(
    registry: Registry, serve_process: ServeProcess, row: np.ndarray, mended: bool
) -> None:
    file = registry.base / registry["b"] / "model.onnx"
    whole = file.read_bytes()
    process = serve_process(registry.base, "--workers", "2")
    registry.damage("b")
    registry_at(registry.base).promote([Promotion(registry["b"])], prove=lambda _: None)
    first = workers_of(process)

    def met() -> serving_status_pb2.ServingStatus:
        with connected(process) as stub:
            return status_of(stub)

    failing: set[int] = set()
    while len(failing) < 2:  # both have tried, and serve the one before
        failing |= {found.process_id for found in [met()] if found.load_errors}
    killed, other = first
    kill(killed)
    while not (found := met()).warnings:
        pass
    assert found.process_id == other.pid
    assert "keeps off the port" in found.warnings[0]
    assert "BTCUSDT/15m" in found.warnings[0]
    for _ in range(20):  # each of these would go to one of two
        with connected(process) as stub:
            assert stub.Predict(request(row), timeout=60).model_id == registry["a"]
    if mended:
        file.write_bytes(whole)
    else:
        kill(other)
    with SignalClient(process.target, deadline_ms=LONG_MS, read_deadline_ms=LONG_MS) as client:
        client.wait_ready(LONG_MS)
    while (found := met()).process_id in {worker.pid for worker in first} or found.warnings:
        pass
    with SignalClient(process.target, deadline_ms=LONG_MS) as client:
        assert client.predict("ETHUSDT", "15m", row, feature_names=NAMES).model_id == registry["eth"]


def test_a_worker_that_is_drained_again_and_again_is_started_again_as_quickly(
    registry: Registry, serve_process: ServeProcess
) -> None:
    process = serve_process(registry.base, "--workers", "2")

    def both() -> dict[int, int]:
        """The workers' processes by their numbers, once both serve."""
        numbers: dict[int, int] = {}
        while len(numbers) < 2:
            with connected(process) as stub:
                found = status_of(stub)
                numbers[found.worker] = found.process_id
        return numbers

    for _ in range(3):
        worker = psutil.Process(both()[1])
        worker.terminate()
        psutil.wait_procs([worker], timeout=60)
    both()
    assert process.terminate() == 0
    ends = [line for line in logged(process) if line["event"] == "worker.died"]
    assert [(line["number"], line["exit_code"], line["restart_in"]) for line in ends] == [(1, 0, 0.5)] * 3


def test_a_worker_that_stands_still_is_said_to_and_killed_and_started_again(
    registry: Registry, serve_process: ServeProcess, row: np.ndarray
) -> None:
    process = serve_process(registry.base, "--workers", "2", server={"silence_seconds": 5.0})
    with connected(process) as stub:
        awake = status_of(stub).process_id
        statuses = stub.WatchServingStatus(serving_status_pb2.WatchServingStatusRequest(), timeout=120)
        assert not next(statuses).status.warnings
        (frozen,) = [worker for worker in workers_of(process) if worker.pid != awake]
        frozen.suspend()
        said = next(found for found in (each.status for each in statuses) if found.warnings)
        assert f"(process {frozen.pid}) has not been heard for some seconds" in said.warnings[0]
        psutil.wait_procs([frozen], timeout=60)
        assert not next(found for found in (each.status for each in statuses) if not found.warnings).warnings
    while len(workers_of(process)) < 2:
        pass
    with SignalClient(process.target, deadline_ms=LONG_MS, read_deadline_ms=LONG_MS) as client:
        client.wait_ready(LONG_MS)
        assert client.predict("BTCUSDT", "15m", row, feature_names=NAMES).model_id == registry["a"]
    assert process.terminate() == 0
    events = [line["event"] for line in logged(process) if line["event"].startswith("worker.")]
    assert events[:3] == ["worker.silent", "worker.killed", "worker.died"]
