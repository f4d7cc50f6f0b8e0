"""What goes wrong with the registry or with one model is said, and hurts nothing else that is served."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from filelock import FileLock

from signalserve.cli import exits
from signalserve.client import (
    DeadlineExceeded,
    FailedPrecondition,
    Prediction,
    PredictionRequest,
    Unavailable,
)
from signalserve.registry import Promotion
from signalserve.registry.errors import RegistryGoneError
from signalserve.server.limits import ModelChoice
from signalserve.server.loader import Loader
from signalserve.v1 import registry_pb2
from tests.registries import registry_at
from tests.server.conftest import ROOT
from tests.server.wire.conftest import NAMES, Registry, Server, request
from tests.small_models import register_copy, sealed_template

Serve = Callable[..., Server]


def ask(server: Server, symbol: str, row: np.ndarray, **more: Any) -> Prediction:
    return server.client.predict(symbol, "15m", row, feature_names=NAMES, **more)


def test_a_registry_that_goes_as_a_model_is_opened_is_said_to_have_gone_and_not_that_a_file_is_missing(
    tmp_path: Path,
) -> None:
    base, away = tmp_path / "models", tmp_path / "away"
    register_copy(sealed_template(tmp_path / "template"), base, "one")
    opened = registry_at(base)
    state = opened.state
    loader = Loader(opened.artefacts, ModelChoice(), opened.store.check)
    base.rename(away)
    with pytest.raises(RegistryGoneError):
        loader.open_named(state, "one")
    away.rename(base)
    assert loader.open_named(state, "one").model_id == "one"


def test_a_registry_that_goes_away_is_said_and_what_is_served_goes_on_until_it_is_back(
    registry: Registry, serve: Serve, row: np.ndarray
) -> None:
    server = serve(registry.base)
    away = registry.base.with_name("unmounted")
    registry.base.rename(away)
    said = server.until(lambda status: status.registry_error)
    assert str(registry.base) in said.registry_error
    assert said.ready
    assert ask(server, "BTCUSDT", row).model_id == registry["a"]
    assert ask(server, "ETHUSDT", row).model_id == registry["eth"]
    # its history is not empty, it is away
    for ask_registry in (server.client.list_models, lambda: list(server.client.events())):
        with pytest.raises(Unavailable, match="bring it back") as away_said:
            ask_registry()
        assert away_said.value.reason == "REGISTRY_MISSING"
    # nobody makes another one in its place
    with pytest.raises(Unavailable) as refused:
        server.client.promote(registry["b"])
    assert refused.value.reason == "REGISTRY_MISSING"
    assert not registry.base.exists()
    away.rename(registry.base)
    server.until(lambda status: not status.registry_error)
    server.client.promote(registry["b"])
    assert ask(server, "BTCUSDT", row).model_id == registry["b"]


def test_an_empty_folder_in_its_place_is_no_empty_registry(
    registry: Registry, serve: Serve, row: np.ndarray
) -> None:
    server = serve(registry.base)
    away = registry.base.with_name("unmounted")
    registry.base.rename(away)
    registry.base.mkdir()  # the mount point
    said = server.until(lambda status: status.registry_error)
    assert "the registry has gone from" in said.registry_error
    for change in (lambda: server.client.promote(registry["b"]), lambda: list(server.client.events())):
        with pytest.raises(Unavailable, match="do not make another") as refused:
            change()
        assert refused.value.reason == "REGISTRY_MISSING"
    assert list(registry.base.iterdir()) == []  # nothing that would hide the registry when it is back
    assert ask(server, "BTCUSDT", row).model_id == registry["a"]


@pytest.mark.parametrize("name", ["manifest.json", "meta.json", "golden.npz", "model.onnx"])
def test_a_file_that_has_swollen_is_never_held_in_memory(
    name: str, registry: Registry, serve: Serve, row: np.ndarray
) -> None:
    server = serve(registry.base)
    os.truncate(registry.base / registry["b"] / name, 4 << 30)  # sparse: it takes no room on the disk
    tracemalloc.start()
    try:
        assert len(server.client.list_models()) == 5
        server.registry.GetModel(registry_pb2.GetModelRequest(model_id=registry["b"]), timeout=60)
        if name == "meta.json":  # it is for people: what scores is whole
            assert ask(server, "BTCUSDT", row, model_id=registry["b"]).model_id == registry["b"]
        else:
            for use in (
                lambda: ask(server, "BTCUSDT", row, model_id=registry["b"]),
                lambda: server.client.promote(registry["b"], force=True, reason="test"),
            ):
                with pytest.raises(FailedPrecondition, match="4,294,967,296 bytes, over the limit"):
                    use()
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()
    assert ask(server, "BTCUSDT", row).model_id == registry["a"]


@pytest.mark.parametrize("emptied", [False, True])
def test_a_destroyed_log_is_said(emptied: bool, registry: Registry, serve: Serve, row: np.ndarray) -> None:
    server = serve(registry.base)
    log = registry.base / "registry_events.jsonl"
    whole = log.read_bytes()
    if emptied:
        os.truncate(log, 0)
    else:
        log.unlink()
    said = "was emptied" if emptied else "has gone"
    server.until(lambda status: said in status.registry_error)
    assert ask(server, "BTCUSDT", row).model_id == registry["a"]
    log.write_bytes(whole)
    server.until(lambda status: not status.registry_error)


def test_answers_of_a_model_whose_successor_can_not_be_loaded_are_flagged(
    registry: Registry, serve: Serve, row: np.ndarray
) -> None:
    # it looks at the registry only when somebody asks for a revision
    server = serve(registry.base, server={"poll_ms": 3_600_000})
    promoted = server.client.promote(registry["b"])
    assert ask(server, "BTCUSDT", row).flags == ()
    newest = registry_at(registry.base).promote([Promotion(registry["c"])]).revision
    registry.damage("c")
    with pytest.raises((Unavailable, DeadlineExceeded)):
        ask(server, "BTCUSDT", row, min_registry_revision=newest, deadline_ms=1_000)
    server.until(lambda status: status.load_errors)
    answer = ask(server, "BTCUSDT", row)
    assert answer.model_id == registry["b"]
    assert "NOT_CURRENT" in answer.flags
    # asked for by name it is what was asked for
    assert "NOT_CURRENT" not in ask(server, "BTCUSDT", row, model_id=registry["b"]).flags
    model = next(item for item in server.client.status().models if item.symbol == "BTCUSDT")
    assert model.wanted_model_id == registry["c"]
    assert ask(server, "ETHUSDT", row).flags == ()
    # the answer is of the revision whose model gave it; who asks for a later one gets no older model
    assert answer.registry_revision == promoted.registry_revision
    items = [
        PredictionRequest("BTCUSDT", "15m", row, feature_names=NAMES, min_registry_revision=revision)
        for revision in (promoted.registry_revision, newest)
    ]
    first, second = server.client.predict_batch(items)
    assert first.result().model_id == registry["b"]
    assert second.error is not None
    assert second.error.reason == "BEHIND"


def _with_status(text: str, model_id: str, status: str) -> str:
    """The index with another status of one row; it is the last column."""
    return "".join(
        line.rpartition(",")[0] + f",{status}\n" if line.startswith(model_id + ",") else line
        for line in text.splitlines(keepends=True)
    )


def test_an_answer_of_a_revision_that_is_asked_for_waits_for_it(
    registry: Registry, serve: Serve, row: np.ndarray
) -> None:
    # so long between two looks that only the wait brings it about
    server = serve(registry.base, server={"poll_ms": 3_600_000})
    revision = registry_at(registry.base).promote([Promotion(registry["b"])]).revision
    assert ask(server, "BTCUSDT", row).model_id == registry["a"]
    answer = ask(server, "BTCUSDT", row, min_registry_revision=revision)
    assert (answer.model_id, answer.registry_revision) == (registry["b"], revision)


def test_a_revision_that_does_not_come_within_the_deadline_is_behind(
    registry: Registry, serve: Serve, row: np.ndarray
) -> None:
    server = serve(registry.base)
    with pytest.raises(grpc.RpcError) as refused:
        server.prediction.Predict(request(row, min_registry_revision=10_000), timeout=0.5)
    assert refused.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    batch = server.client.predict_batch(
        [
            _item("BTCUSDT", row, 10_000),
            _item("ETHUSDT", row, 1),
        ]
    )
    assert batch[0].error is not None
    assert batch[0].error.reason == "BEHIND"
    assert batch[1].result().model_id == registry["eth"]


def _item(symbol: str, row: np.ndarray, revision: int) -> PredictionRequest:
    return PredictionRequest(symbol, "15m", row, feature_names=NAMES, min_registry_revision=revision)


def test_a_drain_sends_its_clients_away_at_once_while_a_call_is_still_open(
    registry: Registry, serve: Serve, row: np.ndarray
) -> None:
    server = serve(registry.base)
    gone = threading.Event()
    with grpc.insecure_channel(server.target) as channel:
        grpc.channel_ready_future(channel).result(timeout=60)
        channel.subscribe(lambda state: state is not grpc.ChannelConnectivity.READY and gone.set())
        with FileLock(registry.base / ".registry.lock"):  # keeps a promote open for as long as the test wants
            promote = server.registry.Promote.future(
                registry_pb2.PromoteRequest(promotions=[registry_pb2.Promotion(model_id=registry["b"])])
            )
            assert server.parts is not None
            guard = server.parts.guard
            while not server.call(lambda: guard.in_flight):
                pass
            gone.clear()
            server.begin_stop()
            assert gone.wait(60)
            host, _, port = server.target.partition(":")
            with pytest.raises(ConnectionRefusedError), socket.create_connection((host, int(port)), 60):
                pass
            assert server.call(lambda: guard.in_flight)
        assert promote.result(timeout=60).transitions[0].model_id == registry["b"]


def test_changes_that_wait_for_the_lock_keep_nobody_from_reading_or_following(
    registry: Registry, serve: Serve, row: np.ndarray
) -> None:
    server = serve(registry.base)
    with FileLock(registry.base / ".registry.lock"):
        waiting = [
            server.registry.Promote.future(
                registry_pb2.PromoteRequest(promotions=[registry_pb2.Promotion(model_id=registry["b"])])
            )
            for _ in range(40)
        ]
        assert server.parts is not None
        guard = server.parts.guard
        while server.call(lambda: guard.in_flight) < len(waiting):
            pass
        assert len(server.client.list_models()) == 5
        registry.edit_index(lambda text: _with_status(text, registry["eth"], "archived"))
        server.until(lambda status: not any(model.symbol == "ETHUSDT" for model in status.models))
        assert ask(server, "BTCUSDT", row).model_id == registry["a"]
    for promote in waiting:
        promote.result(timeout=60)


def test_a_server_that_finds_a_mount_point_alone_serves_nothing_until_the_disk_is_there(
    registry: Registry, serve: Serve, row: np.ndarray
) -> None:
    away = registry.base.with_name("unmounted")
    registry.base.rename(away)
    registry.base.mkdir()
    server = serve(registry.base, ready=False)
    said = server.until(lambda status: status.registry_error)
    assert "holds no registry: is its disk mounted?" in said.registry_error
    assert not said.ready
    with pytest.raises(Unavailable) as starting:
        ask(server, "BTCUSDT", row, deadline_ms=500)
    assert starting.value.reason == "STARTING"
    with pytest.raises(FailedPrecondition) as refused:
        server.client.promote(registry["b"])
    assert refused.value.reason == "REGISTRY_MISSING"
    registry.base.rmdir()
    away.rename(registry.base)
    server.until(lambda status: status.ready and not status.registry_error)
    assert ask(server, "BTCUSDT", row).model_id == registry["a"]


@pytest.mark.parametrize("mount_point", [False, True])
def test_a_server_does_not_start_on_a_registry_that_is_not_there(mount_point: bool, tmp_path: Path) -> None:
    if mount_point:
        (tmp_path / "typo").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "signalserve.cli.main", "serve", "--registry", str(tmp_path / "typo")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == exits.STORAGE
    assert ("holds no registry" if mount_point else "there is no registry at") in done.stderr
    assert [path.name for path in tmp_path.rglob("*")] == (["typo"] if mount_point else [])


def test_a_change_that_waits_for_the_lock_is_said_until_it_has_had_its_turn(
    registry: Registry, serve: Serve, row: np.ndarray
) -> None:
    server = serve(registry.base)
    with FileLock(registry.base / ".registry.lock"):
        promote = server.registry.Promote.future(
            registry_pb2.PromoteRequest(promotions=[registry_pb2.Promotion(model_id=registry["b"])])
        )
        (warning,) = server.until(lambda status: status.warnings).warnings
        assert "the registry's lock" in warning
        assert ask(server, "BTCUSDT", row).model_id == registry["a"]
    promote.result(timeout=60)
    server.until(lambda status: not status.warnings)


def test_a_change_whose_caller_has_gone_is_not_made_once_its_turn_comes(
    registry: Registry, serve: Serve, row: np.ndarray
) -> None:
    server = serve(registry.base)
    before = server.client.status().registry_revision
    with FileLock(registry.base / ".registry.lock"):
        with pytest.raises(DeadlineExceeded):
            server.client.promote(registry["b"], deadline_ms=1_000)
        assert server.parts is not None
        guard = server.parts.guard
        while server.call(lambda: guard.in_flight):
            pass
    # the next change has its turn after the one that was given up
    after = server.client.promote(registry["c"])
    assert after.registry_revision == before + 1
    assert [
        event.reason for event in server.client.events(model_id=registry["b"]) if event.action == "promote"
    ] == []


def test_who_is_told_that_a_revision_is_not_served_is_told_why(
    registry: Registry, serve: Serve, row: np.ndarray
) -> None:
    server = serve(registry.base)
    with pytest.raises(Unavailable) as behind:
        ask(server, "BTCUSDT", row, min_registry_revision=10_000, deadline_ms=1_000)
    assert behind.value.reason == "BEHIND"
    with server.client.stream(deadline_ms=60_000) as stream:
        stream.send("BTCUSDT", "15m", row, feature_names=NAMES, min_registry_revision=10_000)
        stream.send("BTCUSDT", "15m", row, feature_names=NAMES)
        first, second = next(stream), next(stream)
    assert first.error is not None
    assert first.error.reason == "BEHIND"
    assert second.ok
