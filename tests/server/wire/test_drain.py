"""How a server ends: every call gets its answer or a plain word, and the process exits 0."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from signalserve.client import SignalClient, SignalServeError, Unavailable
from signalserve.registry import init_registry, promote_model
from tests.registries import gate_of
from tests.server.conftest import ROOT
from tests.server.wire.conftest import (
    LONG_MS,
    NAMES,
    Registry,
    Server,
    ServerProcess,
    request,
    served,
)
from tests.server.wire.test_bad_input import with_counting

SERVICES = ("", "signalserve.v1.PredictionService", "signalserve.v1.RegistryService")


def health(target: str, service: str = "") -> int:
    with grpc.insecure_channel(target) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service), 60)
        status: int = answer.status
        return status


def logged(process: ServerProcess) -> list[dict[str, Any]]:
    return [json.loads(line) for line in process.log.read_text().splitlines() if line.startswith("{")]


@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_ends_idle_streams_at_once_with_unavailable_and_exit_code_0(
    registry: Registry, serve_process: Callable[..., ServerProcess], row: np.ndarray, workers: int
) -> None:
    # a drain that waited for the stream would outlast the test
    process = serve_process(registry.base, "--workers", str(workers), server={"drain_seconds": 3600.0})
    assert all(health(process.target, name) == 1 for name in SERVICES)
    with SignalClient(process.target, deadline_ms=LONG_MS) as client, client.stream() as stream:
        stream.send("BTCUSDT", "15m", row, feature_names=NAMES)
        assert next(stream).result().model_id == registry["a"]
        watch = client.watch_status(deadline_ms=LONG_MS)
        next(watch)
        assert process.terminate() == 0
        for item in (stream, watch):
            with pytest.raises(Unavailable):
                next(item)
        stream.close()


def test_a_stream_that_never_pauses_ends_long_before_the_drain_does(
    registry: Registry, serve_process: Callable[..., ServerProcess], row: np.ndarray
) -> None:
    process = serve_process(registry.base, server={"drain_seconds": 3600.0})
    answers: list[float] = []
    ended: list[SignalServeError] = []
    flowing = threading.Event()

    def ask_without_pause() -> None:
        with SignalClient(process.target) as client, client.stream(deadline_ms=LONG_MS) as stream:
            try:
                while True:
                    stream.send("BTCUSDT", "15m", row, feature_names=NAMES)
                    answers.append(next(stream).result().score)
                    flowing.set()
            except SignalServeError as error:
                ended.append(error)

    asking = threading.Thread(target=ask_without_pause)
    asking.start()
    assert flowing.wait(60)
    assert process.terminate() == 0
    asking.join()
    assert [(type(error), error.reason) for error in ended] == [(Unavailable, "DRAINING")]
    assert set(answers) == {answers[0]}


def test_calls_in_flight_finish_and_health_is_off_while_they_do(server: Server) -> None:
    counting = with_counting(server, "BTCUSDT")
    busy = server.prediction.Predict.future(request([0.1, 0.2, 0.3, 0.4]), timeout=60)
    assert counting.entered.wait(60)
    watch = health_pb2_grpc.HealthStub(server.channel).Watch(health_pb2.HealthCheckRequest(), timeout=60)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    server.begin_stop()
    assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert not busy.done()
    with pytest.raises(grpc.RpcError) as caught:
        server.prediction.Predict(request([0.1, 0.2, 0.3, 0.4]), timeout=60)
    # gRPC itself cancels what was on its way as the connection was closed to new calls
    assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    counting.release.set()
    assert len(busy.result().scores) == 1


def test_a_stream_answers_what_it_owes_before_it_ends(server: Server, row: np.ndarray) -> None:
    counting = with_counting(server, "BTCUSDT")
    with server.client.stream(deadline_ms=LONG_MS) as stream:
        for _ in range(50):
            stream.send("BTCUSDT", "15m", row, feature_names=NAMES)
        assert counting.entered.wait(60)
        # the server has read all of them, or will find them in its buffers
        server.client.status()
        server.begin_stop()
        while not server.call(lambda: server.parts.guard.draining):  # type: ignore[union-attr]
            pass
        counting.release.set()
        items = []
        with pytest.raises(Unavailable) as caught:
            while True:
                items.append(next(stream))
    assert [item.sequence for item in items] == list(range(1, 51))
    assert all(item.ok for item in items)
    assert caught.value.reason == "DRAINING"


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("setting", ["port", "metrics_port"])
def test_a_taken_port_is_one_clear_line_and_exit_code_1(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, workers: str, setting: str
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        monkeypatch.setenv("SIGNALSERVE__SERVER__PORT", "0")
        monkeypatch.setenv(f"SIGNALSERVE__SERVER__{setting.upper()}", port)
        answer = subprocess.run(
            [
                sys.executable,
                "-m",
                "signalserve.cli.main",
                "serve",
                "--workers",
                workers,
                "-r",
                registry.base,
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
    assert answer.returncode == 1
    lines = [line for line in answer.stderr.splitlines() if "error" in line.lower()]
    assert len(lines) == 1, answer.stderr
    assert f"127.0.0.1:{port} can't be bound" in lines[0]
    assert f"server.{setting}" in lines[0]
    assert "Traceback" not in answer.stderr


def test_a_second_server_with_workers_does_not_share_the_port_of_the_first(
    registry: Registry, serve_process: Callable[..., ServerProcess]
) -> None:
    process = serve_process(registry.base, "--workers", "2")
    answer = subprocess.run(
        [
            *(sys.executable, "-m", "signalserve.cli.main", "serve", "--workers", "2"),
            *("--port", str(process.port), "-r", str(registry.base)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert answer.returncode == 1
    assert "can't be bound" in answer.stderr


def test_two_workers_serve_follow_a_promote_and_replace_one_that_was_killed(
    registry: Registry, serve_process: Callable[..., ServerProcess], row: np.ndarray
) -> None:
    process = serve_process(registry.base, "--workers", "2")

    def workers_that_serve(model_id: str, other_than: frozenset[int] = frozenset()) -> set[int]:
        """Ask over new connections until two workers were met that serve a model."""
        met: set[int] = set()
        while len(met) < 2:
            with SignalClient(process.target, read_deadline_ms=LONG_MS) as client:
                for status in client.watch_status(deadline_ms=LONG_MS):
                    if served(status, "BTCUSDT") == model_id and status.ready:
                        met |= {status.process_id} - other_than
                        break
        return met

    first = workers_that_serve(registry["a"])
    promote_model(registry["b"], base_dir=registry.base, gate=gate_of())
    assert workers_that_serve(registry["b"]) == first
    with SignalClient(process.target, deadline_ms=LONG_MS) as client:
        answer = client.predict("BTCUSDT", "15m", row, feature_names=NAMES)
    assert answer.score == pytest.approx(registry.native("b", row[None])[0], abs=1e-6)

    victim = min(first)
    killed = psutil.Process(victim)
    os.kill(victim, signal.SIGKILL)
    psutil.wait_procs([killed], timeout=60)
    assert len(workers_that_serve(registry["b"], frozenset({victim})) - first) == 1
    assert process.terminate() == 0
    assert [line["pid"] for line in logged(process) if line["event"] == "worker.died"] == [victim]


def test_reflection_lists_the_services(server: Server) -> None:
    from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

    names = set(ProtoReflectionDescriptorDatabase(server.channel).get_services())
    assert {*SERVICES[1:], "grpc.health.v1.Health"} <= names


@pytest.mark.parametrize("strict", [False, True])
def test_a_model_that_can_not_be_loaded_takes_the_others_away_only_where_health_is_strict(
    registry: Registry, serve: Callable[..., Server], strict: bool
) -> None:
    damaged = registry.base / registry["eth"] / "model.onnx"
    whole = damaged.read_bytes()
    registry.damage("eth")
    server = serve(registry.base, ready=False, server={"strict_ready": strict})
    status = server.until(lambda status: bool(status.load_errors) and not status.loading)
    assert status.ready != strict
    stub = health_pb2_grpc.HealthStub(server.channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest(service="ETHUSDT/15m"), timeout=60)
    assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert all(health(server.target, name) == (2 if strict else 1) for name in SERVICES)
    assert [health(server.target, name) for name in ("BTCUSDT/15m", "registry", "liveness")] == [1, 1, 1]
    with pytest.raises(grpc.RpcError) as unknown:
        health(server.target, "NOPE/15m")
    assert unknown.value.code() == grpc.StatusCode.NOT_FOUND
    damaged.write_bytes(whole)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    assert all(health(server.target, name) == 1 for name in SERVICES)


def test_health_of_the_registry_says_that_it_has_gone_and_the_server_lives_and_serves(
    registry: Registry, serve: Callable[..., Server]
) -> None:
    server = serve(registry.base)
    watch = health_pb2_grpc.HealthStub(server.channel).Watch(
        health_pb2.HealthCheckRequest(service="registry"), timeout=60
    )
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    away = registry.base.with_name("unmounted")
    registry.base.rename(away)
    assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert [health(server.target, name) for name in ("", "liveness", "BTCUSDT/15m")] == [1, 1, 1]
    away.rename(registry.base)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING


def test_an_empty_registry_is_served_and_healthy(tmp_path: Path, serve: Callable[..., Server]) -> None:
    init_registry(tmp_path / "nothing")
    server = serve(tmp_path / "nothing")
    watch = health_pb2_grpc.HealthStub(server.channel).Watch(health_pb2.HealthCheckRequest(), timeout=60)
    assert any(answer.status == health_pb2.HealthCheckResponse.SERVING for answer in watch)
    assert server.client.list_models() == []


def test_the_log_has_a_line_a_lifecycle_event_and_none_a_prediction(
    registry: Registry, serve_process: Callable[..., ServerProcess], row: np.ndarray
) -> None:
    process = serve_process(registry.base)
    with SignalClient(process.target, deadline_ms=LONG_MS) as client:
        for _ in range(50):
            client.predict("BTCUSDT", "15m", row, feature_names=NAMES)
        with pytest.raises(SignalServeError):
            client.predict("NOPE", "15m", row, feature_names=NAMES)
        assert client.promote(registry["b"]).served
        client.predict("BTCUSDT", "15m", row, feature_names=NAMES)
    assert process.terminate() == 0
    lines = logged(process)
    assert len(lines) == len(process.log.read_text().splitlines())
    events = [line["event"] for line in lines if line["event"].partition(".")[0] in ("server", "model")]
    assert events.count("model.loaded") == 3
    assert [event for event in events if event not in ("model.loaded",)] == [
        "server.listening",
        "model.swapped",
        "model.swapped",
        "server.ready",
        "model.swapped",
        "server.draining",
        "server.stopped",
    ]
    swapped = [line for line in lines if line["event"] == "model.swapped"][-1]
    assert (swapped["key"], swapped["before"], swapped["after"]) == (
        "BTCUSDT/15m",
        registry["a"],
        registry["b"],
    )


def test_workers_whose_parent_was_killed_do_not_stay_behind(
    registry: Registry, serve_process: Callable[..., ServerProcess]
) -> None:
    process = serve_process(registry.base, "--workers", "2")
    parent = psutil.Process(process.process.pid)
    workers = [child for child in parent.children() if "spawn_main" in " ".join(child.cmdline())]
    assert len(workers) == 2
    parent.kill()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert alive == []
