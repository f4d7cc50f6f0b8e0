"""The index is edited by hand under a server: honoured, recorded at once and marked, or held until it is confirmed."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from signalserve.cli import exits
from signalserve.client import Aborted, FailedPrecondition, Prediction, ServingStatus
from signalserve.registry import verify_log
from signalserve.registry.events import EventLog
from tests.cli.test_commands import signalserve
from tests.registries import registry_at
from tests.server.wire.conftest import NAMES, Registry, Server
from tests.server.wire.test_metrics import scrape

Serve = Callable[..., Server]
HOLD = {"promotion": {"hand_edits": "hold"}}


def ask(server: Server, row: np.ndarray) -> Prediction:
    return server.client.predict("BTCUSDT", "15m", row, feature_names=NAMES)


def swapped(registry: Registry, old: str, new: str) -> Callable[[str], str]:
    """An edit that archives one model and puts another into production."""

    def change(text: str) -> str:
        lines = []
        for line in text.splitlines():
            if line.startswith(registry[old] + ","):
                line = re.sub("production$", "archived", line)
            elif line.startswith(registry[new] + ","):
                line = re.sub("(success|candidate|archived)$", "production", line)
            lines.append(line)
        return "\n".join(lines) + "\n"

    return change


def events(registry: Registry) -> list[str]:
    return [event.action for event in EventLog(registry.base / "registry_events.jsonl").read_new().events]


def test_an_edit_is_served_recorded_by_the_server_and_marked_wherever_it_is_listed(
    registry: Registry, serve: Serve, row: np.ndarray
) -> None:
    server = serve(registry.base)
    registry.edit_index(swapped(registry, "a", "b"))
    status = server.until(lambda status: any("by hand" in warning for warning in status.warnings))
    server.until(lambda status: any(model.model_id == registry["b"] for model in status.models))
    assert ask(server, row).model_id == registry["b"]
    assert (
        f"BTCUSDT/15m: {registry['b']} was put into production by hand, without evidence" in status.warnings
    )
    assert events(registry)[-1] == "external_edit"
    assert verify_log(registry.base).ok
    event = EventLog(registry.base / "registry_events.jsonl").read_new().events[-1]
    assert (event.actor, event.via) == ("unknown", "server")
    listed = signalserve("registry", "validate", "--registry", str(registry.base))
    assert f"{registry['b']} was put into production by hand, without evidence" in listed
    assert "production (by hand, without evidence)" in signalserve("models", "--target", server.target)
    assert [item.model_id for item in server.client.list_models() if item.by_hand] == [registry["b"]]
    assert server.client.get_model(registry["b"]).model.by_hand
    # a decision ends the mark
    result = server.client.promote(registry["c"], force=True, reason="a decision")
    assert result.log_head == verify_log(registry.base).head
    server.until(lambda status: not any("by hand" in warning for warning in status.warnings))


def test_an_edit_that_is_held_is_served_once_it_is_confirmed(
    registry: Registry, serve: Serve, row: np.ndarray
) -> None:
    server = serve(registry.base, **HOLD)
    registry.edit_index(swapped(registry, "a", "b"))
    at = ("--registry", str(registry.base))

    def held(status: ServingStatus) -> bool:
        return any("until `signalserve registry confirm`" in warning for warning in status.warnings)

    server.until(held)
    assert ask(server, row).model_id == registry["a"]
    # what is decided meanwhile builds on what is served
    with pytest.raises(Aborted, match=f"found {registry['a']}"):
        server.client.promote(registry["c"], expected_production_model_id=registry["b"])
    with pytest.raises(FailedPrecondition, match="is in production"):
        server.client.archive([registry["a"]], "it is bad")
    assert [item.model_id for item in server.client.list_models() if item.by_hand] == [registry["b"]]
    told = signalserve("registry", "confirm", "ETHUSDT/15m", *at, code=exits.NOT_FOUND)
    assert "nothing of it waits to be confirmed" in told
    assert "a key is written" in signalserve("registry", "confirm", "ETHUSDT", *at, code=exits.USAGE)
    told = signalserve("registry", "confirm", *at, "--reason", "it was meant")
    assert f"BTCUSDT/15m: {registry['b']}; what was decided before is {registry['a']}" in told
    status = server.until(
        lambda status: any(model.model_id == registry["b"] for model in status.models) and not held(status)
    )
    assert any("by hand, without evidence" in warning for warning in status.warnings)
    assert ask(server, row).model_id == registry["b"]
    assert "nothing waits" in signalserve("registry", "confirm", *at)


def test_an_old_copy_is_said_in_status_and_metrics_and_gone_once_it_is_accepted(
    registry: Registry, serve: Serve, row: np.ndarray
) -> None:
    index = registry.base / "registry_index.csv"
    old = index.read_bytes()
    server = serve(registry.base, server={"metrics_port": 0})
    server.client.promote(registry["b"], force=True, reason="a test")
    index.write_bytes(old)
    status = server.until(
        lambda status: any("the index is not followed" in warning for warning in status.warnings)
    )
    assert status.ready
    assert ask(server, row).model_id == registry["b"]
    assert scrape(server)["signalserve_registry_index_followed"] == 0
    signalserve(
        "registry", "accept-index", "--yes", "--registry", str(registry.base), "--reason", "it was meant"
    )
    server.until(lambda status: any(model.model_id == registry["a"] for model in status.models))
    server.until(lambda status: not any("not followed" in warning for warning in status.warnings))
    assert scrape(server)["signalserve_registry_index_followed"] == 1


def test_a_log_that_was_cut_off_is_said_in_status_and_metrics(
    registry: Registry, serve: Serve, row: np.ndarray
) -> None:
    log = registry.base / "registry_events.jsonl"
    before = log.read_bytes()
    server = serve(registry.base, server={"metrics_port": 0})
    server.client.promote(registry["b"], force=True, reason="a test")
    assert ask(server, row).model_id == registry["b"]
    whole = log.read_bytes()
    log.write_bytes(before)
    server.until(lambda status: any("no longer holds revision" in warning for warning in status.warnings))
    assert scrape(server)["signalserve_registry_log_whole"] == 0
    assert ask(server, row).model_id in (registry["a"], registry["b"])
    log.write_bytes(whole)
    server.until(lambda status: not any("no longer holds" in warning for warning in status.warnings))
    assert scrape(server)["signalserve_registry_log_whole"] == 1


def test_a_server_that_may_not_write_says_that_nobody_recorded_an_edit(
    registry: Registry, serve: Serve, row: np.ndarray
) -> None:
    """What stands in the way of the lock file stands in the way of every writer."""
    server = serve(registry.base)
    lock = registry.base / ".registry.lock"
    lock.unlink(missing_ok=True)
    lock.mkdir()
    registry.edit_index(swapped(registry, "a", "b"))
    server.until(lambda status: any("no event says so yet" in warning for warning in status.warnings))
    server.until(lambda status: any(model.model_id == registry["b"] for model in status.models))
    assert ask(server, row).model_id == registry["b"]
    lock.rmdir()
    server.until(lambda status: not any("no event says so" in warning for warning in status.warnings))
    assert events(registry)[-1] == "external_edit"


def test_a_server_leaves_an_index_without_any_log_to_its_owner(
    registry: Registry, serve: Serve, tmp_path: Path
) -> None:
    legacy = tmp_path / "legacy"
    shutil.copytree(registry.base, legacy)
    (legacy / "registry_events.jsonl").unlink()
    server = serve(legacy, ready=False)
    server.until(lambda status: bool(status.load_errors))  # nothing of it was adopted
    assert not (legacy / "registry_events.jsonl").exists()
    assert registry_at(legacy).state.revision == 0
