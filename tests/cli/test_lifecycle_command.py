"""`signalserve archive`, `rollback`, `promote`, `events` and a real server: what they print, and their exit codes."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from signalserve.cli import exits
from signalserve.registry import Promotion
from tests.registries import registry_at
from tests.server.conftest import ROOT, server_process
from tests.small_models import register_copy

KEY = "BTCUSDT/15m"
Command = Callable[..., subprocess.CompletedProcess[str]]


def signalserve(*arguments: str, **more: object) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "signalserve.cli.main", *arguments]
    environment = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=120, check=False, **more
    )


@pytest.fixture
def base(tmp_path: Path, template: Path) -> Path:
    """`only` in production, which had nothing before; `other` registered."""
    base = tmp_path / "registry"
    for name in ("only", "other"):
        register_copy(template, base, name)
    registry_at(base).promote([Promotion("only")])
    return base


@pytest.fixture
def server(base: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    with server_process(base, tmp_path / "log") as found:
        yield found


@pytest.fixture
def command(server: tuple[subprocess.Popen[str], str]) -> Command:
    return lambda *arguments: signalserve(*arguments, "--target", server[1])


def test_a_rollback_brings_back_what_was_archived_and_left_its_key_with_nothing(command: Command) -> None:
    archived = command("archive", "only", "--allow-unserved", "--reason", "delisted")
    assert archived.returncode == 0, archived.stderr
    assert "in production before" not in archived.stdout
    assert archived.stdout.count("only") == 1  # it is not in production of its key
    assert f"{KEY} has nothing in production now" in archived.stderr
    rolled = command("rollback", KEY, "--reason", "listed again", "--json")
    assert rolled.returncode == 0, rolled.stderr
    [moved] = json.loads(rolled.stdout)["transitions"]
    assert (moved["model_id"], moved["previous_model_id"]) == ("only", "")
    assert json.loads(command("status", "--json").stdout)["models"][0]["model_id"] == "only"
    assert "quarantined" not in command("models").stdout
    aside = command("archive", "other", "--reason", "retired")
    assert aside.stdout.count("only") == 1  # it is in production, still


def test_a_look_and_what_is_so_already_name_the_model_in_the_log(base: Path, command: Command) -> None:
    span = ("2026-02-01T00:00:00+00:00", "2026-03-01T00:00:00+00:00")
    registry_at(base).record_look("other", *span, rules={})
    looked = command("events", "--limit", "1", "--model-id", "other").stdout
    assert f"other: backtest over {span[0]} to {span[1]}" in " ".join(looked.split())
    let_in = "let in by no gate, measured by nobody"
    for shown in (command("models"), command("status")):
        assert f"only: {let_in}" in shown.stdout
    assert let_in in command("models", "only").stdout
    assert let_in in " ".join(command("events", "--model-id", "only", "--limit", "1").stdout.split())
    for arguments, said in (
        (("promote", "only"), "only: stays production"),
        (("archive", "other"), "other: success > archived"),
        (("archive", "other"), "other: stays archived"),
    ):
        done = command(*arguments, "--reason", "test")
        assert done.returncode == 0, done.stderr
        assert said in command("events", "--limit", "1").stdout
        [event] = json.loads(command("events", "--limit", "1", "--json").stdout)
        assert [change["model_id"] for change in event["changes"]] == [arguments[1]]
    assert json.loads(command("status", "--json").stdout)["models"][0]["model_id"] == "only"


def test_a_refusal_and_a_full_disk_have_exit_codes_of_their_own(
    command: Command, base: Path, server: tuple[subprocess.Popen[str], str]
) -> None:
    unserved = command("archive", "only", "--reason", "retired")
    assert unserved.returncode == exits.REFUSED
    log = base / "registry_events.jsonl"
    before = log.read_bytes()
    # the server may write no file any further than the log is long
    resource.prlimit(server[0].pid, resource.RLIMIT_FSIZE, (len(before), len(before)))
    full = command("promote", "other", "--reason", "weekly")
    assert full.returncode == exits.STORAGE, full.stderr
    assert "File too large" in full.stderr
    assert log.read_bytes() == before


def test_a_full_disk_and_a_destroyed_log_are_told_without_a_server_too(base: Path) -> None:
    shutil.rmtree(base / "other")
    log = base / "registry_events.jsonl"
    before = log.read_bytes()
    at = ("--registry", str(base))

    def full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before), len(before)))

    done = signalserve("registry", "clean", *at, preexec_fn=full)
    assert done.returncode == exits.STORAGE, done.stderr
    assert log.read_bytes() == before
    log.write_bytes(b"{" + before)
    assert signalserve("registry", "clean", *at).returncode == exits.STORAGE
