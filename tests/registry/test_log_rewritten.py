"""The log is cut off, written anew, put back from a backup, or written by a later version."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from signalserve.cli import exits
from signalserve.common.files import sha256_hex
from signalserve.common.key import Key
from signalserve.registry import Promotion, verify_log
from signalserve.registry.errors import LogCorruptError, StorageError
from signalserve.registry.events import FORMAT, GENESIS, Event, EventLog, canonical
from signalserve.registry.folder_store import FolderStore, open_store
from signalserve.registry.store import Draft, Origin
from tests.cli.test_commands import signalserve
from tests.registries import registry_at
from tests.small_models import register_copy, sealed_template

KEY = Key("BTCUSDT", "15m")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    base, template = tmp_path / "registry", sealed_template(tmp_path / "template")
    for name in ("one", "two"):
        register_copy(template, base, name)
        registry_at(base).promote([Promotion(name)])
    return base


@pytest.fixture
def log(base: Path) -> Path:
    return base / "registry_events.jsonl"


def chained(log: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> bytes:
    """The log with each line changed and the chain hashed anew."""
    lines, before = [], GENESIS
    for line in log.read_bytes().splitlines():
        values = change(json.loads(line))
        values["prev_hash"] = before
        values.pop("hash")
        before = sha256_hex(canonical(values))
        lines.append(canonical(values | {"hash": before}) + b"\n")
    return b"".join(lines)


def forged(values: dict[str, Any]) -> dict[str, Any]:
    return values | {"actor": "somebody else"}


def cut_off(log: Path) -> None:
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-1]))


def rewritten(log: Path) -> None:
    log.write_bytes(chained(log, forged))


@pytest.mark.parametrize("spoil", [cut_off, rewritten])
def test_what_was_cut_off_or_rewritten_shows_against_the_head_that_was_noted(
    base: Path, log: Path, spoil: Callable[[Path], None]
) -> None:
    at = ("--registry", str(base))
    head = verify_log(base).head
    assert f"head: {head}" in signalserve("registry", "verify-log", *at, "--expect", head)
    register_copy(base.parent / "template", base, "three")
    (note,) = verify_log(base, head).notes
    assert note.endswith("is revision 4; 1 more followed")
    newest = verify_log(base).head
    assert verify_log(base, newest[:12]).ok
    spoil(log)
    told = signalserve("registry", "verify-log", *at, "--expect", newest, code=exits.FAILED)
    assert "the log was cut off, or rewritten" in told
    assert not verify_log(base, newest[:12]).ok
    assert not verify_log(base, newest[:3]).ok


@pytest.mark.parametrize("spoil", [cut_off, rewritten])
def test_a_follower_follows_and_raises_an_alarm_until_what_it_had_read_is_back(
    base: Path, log: Path, spoil: Callable[[Path], None]
) -> None:
    store = FolderStore(base)
    assert (store.view().state.production(KEY), store.view().alarm) == ("two", "")
    whole, index = log.read_bytes(), (base / "registry_index.csv").read_bytes()
    spoil(log)
    view = store.view()
    assert "no longer holds revision 4" in view.alarm
    assert view.alarm in view.warnings
    assert view.state.revision == len(log.read_bytes().splitlines())
    log.write_bytes(whole)
    (base / "registry_index.csv").write_bytes(index)
    assert (store.view().state.production(KEY), store.view().alarm) == ("two", "")
    spoil(log)
    register_copy(base.parent / "template", base, "three")  # a longer log makes nothing good
    assert "no longer holds revision 4" in store.view().alarm


def test_a_log_put_back_in_place_from_a_backup_is_followed(base: Path, log: Path) -> None:
    store = FolderStore(base)
    backup, inode = log.read_bytes(), log.stat().st_ino
    register_copy(base.parent / "template", base, "three")
    registry_at(base).promote([Promotion("three")])
    assert store.view().state.production(KEY) == "three"
    # as long as what is there, so that its size says nothing
    other = chained(log, lambda values: values | {"actor": values["actor"][::-1]})
    assert len(other) == log.stat().st_size
    for content in (backup, other):
        with log.open("r+b") as stream:
            stream.write(content)
            stream.truncate()
        assert log.stat().st_ino == inode
        view = store.view()
        assert view.state.revision == len(content.splitlines())
        assert view.alarm


def test_a_line_that_was_taken_back_and_followed_by_a_longer_one_is_no_corrupt_log(
    base: Path, log: Path
) -> None:
    """As a follower meets it whose writer's fsync failed."""
    store = FolderStore(base)
    last = store.view() and EventLog(log).read_new().events[-1]
    size = log.stat().st_size

    def line(reason: str) -> bytes:
        event = replace(last, revision=last.revision + 1, reason=reason, prev_hash=last.hash, request_id="")
        return replace(event, hash=event.digest()).to_line()

    with log.open("ab") as stream:
        stream.write(line("short"))
    assert store.view().state.revision == 5
    os.truncate(log, size)
    with log.open("ab") as stream:
        stream.write(line("much longer than the one before"))
    for _ in range(2):
        view = store.view()
        assert view.state.revision == 5
        assert "its disk failed" in view.alarm
    register_copy(base.parent / "template", base, "three")
    assert store.view().state.revision == 6


def test_a_follower_of_a_log_that_was_mended_in_place_goes_on(base: Path, log: Path) -> None:
    store = FolderStore(base)
    assert store.view().state.revision == 4
    whole = log.read_bytes()
    register_copy(base.parent / "template", base, "three")
    longer = log.read_bytes()
    for spoilt in (
        longer.replace(b'"three"', b'"thrEe"'),
        whole.replace(b'"one"', b'"onE"') + longer[len(whole) :],
    ):
        log.write_bytes(spoilt)
        for _ in range(2):
            with pytest.raises(LogCorruptError):
                FolderStore(base).view()
        log.write_bytes(longer)
        assert store.view().state.revision == 5
        assert store.view().alarm == ""


def test_a_log_of_a_later_version_is_read(base: Path, log: Path) -> None:
    """With a field that nobody here knows, in the event and in a change."""
    assert json.loads(log.read_bytes().splitlines()[-1])["format"] == FORMAT

    def later(values: dict[str, Any]) -> dict[str, Any]:
        changes = [change | {"since": "9.9"} for change in values["transitions"]]
        return values | {"format": 9, "signature": "ab", "transitions": changes}

    log.write_bytes(chained(log, later))
    state = FolderStore(base).view().state
    assert (state.revision, state.production(KEY)) == (4, "two")
    assert verify_log(base).ok
    assert EventLog(log).read_new().events[-1].format == 9
    register_copy(base.parent / "template", base, "three")
    assert open_store(base).view().state.revision == 5
    assert verify_log(base).ok


def test_a_log_of_an_earlier_version_is_read(base: Path, log: Path) -> None:
    log.write_bytes(chained(log, lambda values: {key: values[key] for key in values if key != "format"}))
    assert FolderStore(base).view().state.production(KEY) == "two"
    assert verify_log(base).ok
    assert EventLog(log).read_new().events[-1].format == 0


@pytest.mark.parametrize("gone", ["actor", "transitions", "hash", "prev_hash"])
def test_a_line_that_lacks_a_field_is_no_event(base: Path, log: Path, gone: str) -> None:
    values = json.loads(log.read_bytes().splitlines()[0])
    with pytest.raises(ValueError, match="lacks"):
        Event.from_line(canonical({key: value for key, value in values.items() if key != gone}))


def test_an_editor_may_leave_an_empty_line_in_the_log(base: Path, log: Path) -> None:
    store = open_store(base)
    store.view()
    log.write_bytes(log.read_bytes().replace(b"\n", b"\n\n", 1) + b"\n")
    assert store.view().state.revision == 4
    registry_at(base).promote([Promotion("one")], force=True, reason="back")
    assert (store.view().state.revision, verify_log(base).problems) == (5, ())
    cut_off(log)
    assert "revision 5" in store.view().alarm


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_nuls_that_a_power_cut_left_at_the_end_are_told_and_dropped_by_the_next_writer(
    base: Path, log: Path, end: bytes
) -> None:
    at = ("--registry", str(base))
    with log.open("ab") as stream:
        stream.write(b"\0" * 512 + end)
    (note,) = verify_log(base).notes
    assert "NUL bytes, as a power cut leaves them, was never committed" in note
    assert "nothing to repair" in signalserve("registry", "repair", *at)
    registry_at(base).promote([Promotion("one")], force=True, reason="it goes on")
    assert (b"\0" in log.read_bytes(), verify_log(base).notes) == (False, ())
    log.write_bytes(log.read_bytes().replace(b"}\n", b"}\n" + b"\0" * 512 + b"\n", 1))
    told = signalserve("registry", "verify-log", *at, code=exits.FAILED)
    assert "the line after revision 1 holds NUL bytes" in told


def test_a_lock_that_can_not_be_taken_is_named(base: Path) -> None:
    (base / ".registry.lock").unlink()
    (base / ".registry.lock").mkdir()
    told = signalserve("registry", "confirm", "--registry", str(base), code=exits.STORAGE)
    assert str(base / ".registry.lock") in told


def test_a_last_line_that_lacks_its_end_alone_can_be_kept(base: Path, log: Path) -> None:
    log.write_bytes(log.read_bytes().removesuffix(b"\n"))
    report = verify_log(base)
    assert (report.events, "the last line is whole" in report.notes[0]) == (3, True)
    with log.open("ab") as stream:
        stream.write(b"\n")
    assert verify_log(base).events == 4


def test_each_change_says_the_head_that_it_made(base: Path) -> None:
    done = registry_at(base).promote([Promotion("one")], force=True, reason="back", request_id="once")
    assert done.head == verify_log(base).head
    assert verify_log(base, done.head).ok
    register_copy(base.parent / "template", base, "three")
    again = registry_at(base).promote([Promotion("one")], force=True, reason="back", request_id="once")
    assert (again.repeated, again.head) == (True, done.head)
    assert registry_at(base).promote([Promotion("one")]).head == ""


def test_a_write_that_fails_is_taken_back_also_where_a_reader_has_met_it(
    base: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, whole = open_store(base), log.read_bytes()
    real = os.fsync

    def fails(descriptor: int) -> None:
        if os.path.realpath(f"/proc/self/fd/{descriptor}") == str(log.resolve()):
            assert store.view().state.revision == 5, "a reader meets the line before it is durable"
            raise OSError(5, "Input/output error")
        real(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fails)
        with pytest.raises(StorageError):
            registry_at(base).promote([Promotion("one")], force=True, reason="back")
    assert log.read_bytes() == whole
    assert store.view().state.production(KEY) == "two"
    registry_at(base).promote([Promotion("one")], force=True, reason="back")
    assert store.view().state.production(KEY) == "one"
    assert verify_log(base).ok


def test_a_log_that_is_put_back_while_a_change_is_made_is_not_written_to(base: Path, log: Path) -> None:
    backup = b"".join(log.read_bytes().splitlines(keepends=True)[:2])
    for content in (backup, log.read_bytes() + chained(log, forged).splitlines(keepends=True)[-1]):
        before = log.read_bytes()
        with (
            pytest.raises(StorageError, match="not what it was"),
            open_store(base).transaction(Origin()) as turn,
        ):
            log.write_bytes(content)
            turn.commit(Draft("note"))
        assert log.read_bytes() == content
        log.write_bytes(before)
    assert verify_log(base).ok
