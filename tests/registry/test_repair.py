"""A log that is broken in its middle is mended: nothing goes out of production, and what is lost is listed."""

from __future__ import annotations

from pathlib import Path

import pytest

from signalserve.cli import exits
from signalserve.common.key import Key
from signalserve.registry import Promotion, open_registry, verify_log
from signalserve.registry.errors import LogCorruptError
from signalserve.registry.folder_store import FolderStore, open_store
from tests.cli.test_commands import signalserve
from tests.registries import registry_at
from tests.small_models import register_copy, sealed_template

KEY = Key("BTCUSDT", "15m")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Three models of a key, promoted in turn; rolled back once."""
    base, template = tmp_path / "registry", sealed_template(tmp_path / "template")
    for name in ("one", "two", "three"):
        register_copy(template, base, name)
        registry_at(base).promote([Promotion(name)])
    registry_at(base).rollback([KEY], reason="it loses")
    return base


def broken(base: Path, line: int) -> str:
    """Change one byte of a line; the head as it was."""
    head, log = verify_log(base).head, base / "registry_events.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    lines[line - 1] = lines[line - 1].replace(b'"actor":"', b'"actor":"X', 1)
    log.write_bytes(b"".join(lines))
    return head


@pytest.mark.parametrize(
    ("line", "noted", "lost"),
    [
        (1, True, []),
        (3, True, []),
        (4, True, []),
        (7, True, []),
        (1, False, ["one", "two", "three"]),
        (3, False, ["two", "three"]),
        (4, False, ["three"]),
        (7, False, []),
    ],
)
def test_what_can_be_proven_is_kept_and_the_rest_is_listed(
    base: Path, line: int, noted: bool, lost: list[str]
) -> None:
    """Lines 1, 3 and 5 register the models, which takes their digests; promotes name them again."""
    at = ("--registry", str(base))
    follower = FolderStore(base)
    before = follower.view().state
    head = broken(base, line)
    log = base / "registry_events.jsonl"
    spoilt = log.read_bytes()
    with pytest.raises(LogCorruptError):
        FolderStore(base).view()
    told = signalserve("registry", "verify-log", *at, code=exits.FAILED)
    assert "registry repair" in told
    more = ("--expect", head) if noted else ()
    told = signalserve("registry", "repair", *at, "--dry-run", *more)
    assert f"line {line} is not kept, it has a hash that does not fit its content" in told
    assert f"{line - 1} events before the break can be proven" in told
    assert log.read_bytes() == spoilt
    told = signalserve("registry", "repair", *at, "--yes", *more)
    assert told.count("is not kept") == (1 if noted else 8 - line)
    assert told.count("is proven by the head") == (7 - line if noted else 0)
    (aside,) = base.glob("registry_events.aside-*.jsonl")
    assert str(aside) in told
    assert aside.read_bytes() == spoilt
    report = verify_log(base)
    assert report.ok
    assert f"head {report.head}" in told
    state = open_store(base).view().state
    assert state.production(KEY) == before.production(KEY) == "two"
    assert {name: entry.status for name, entry in state.entries.items()} == {
        name: entry.status for name, entry in before.entries.items()
    }
    assert [name for name in before.digests if not state.digests.get(name)] == lost
    # the seventh line is the rollback's
    assert state.quarantined == (before.quarantined if noted and line < 7 else set())
    for name in lost:
        signalserve("registry", "adopt", name, "--yes", *at)
    assert follower.view().alarm == ""
    assert [event.actor for event in open_store(base).events() if event.action == "external_edit"] == []
    assert "nothing to repair" in signalserve("registry", "repair", *at)
    registry_at(base).promote([Promotion("one")], force=True, reason="it goes on")
    assert verify_log(base).ok


def test_what_proven_lines_say_of_evidence_and_looks_is_kept_up_to_the_head_that_was_noted(
    base: Path,
) -> None:
    at, template = ("--registry", str(base)), base.parent / "template"
    tested = {"test_start": "2026-02-01T00:00:00+00:00", "test_end": "2026-03-01T00:00:00+00:00"}
    register_copy(template, base, "four", extra=tested)
    window = {"window_start": "2026-03-01T00:00:00+00:00", "window_end": "2026-04-01T00:00:00+00:00"}
    open_registry(base).record_evaluation("four", window)
    open_registry(base).record_look(
        "four", "2026-04-02T00:00:00+00:00", "2026-05-01T00:00:00+00:00", rules={}
    )
    head = verify_log(base).head
    before = open_store(base).view().state
    register_copy(template, base, "five")
    broken(base, 6)
    log = base / "registry_events.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join([*lines[:3], b"\n", *lines[3:]]))  # as an editor may leave it
    told = signalserve("registry", "repair", *at, "--yes", "--expect", head[:12])
    assert "5 events before the break" in told
    assert told.count("is proven by the head") == 4
    assert "line 12 is not kept, it is behind the break" in told
    assert verify_log(base).ok
    state = open_store(base).view().state
    assert (state.evidence, state.looks, state.quarantined) == (before.evidence, before.looks, {"three"})
    assert (len(state.evidence), len(state.looks[KEY])) == (1, 3)
    assert [name for name in state.entries if not state.digests.get(name)] == ["five"]
    assert "three" not in state.rollback_targets(KEY)
    proven = [event.detail["proven"] for event in open_store(base).events() if "proven" in event.detail]
    assert proven[-1] == head


def test_what_proven_lines_had_ended_stays_ended(base: Path) -> None:
    """A quarantine by a promote with force, evidence by an archive."""
    at, template = ("--registry", str(base)), base.parent / "template"
    register_copy(template, base, "four")
    registry = registry_at(base)
    window = {"window_start": "2026-03-01T00:00:00+00:00", "window_end": "2026-04-01T00:00:00+00:00"}
    registry.archive(["four"])
    register_copy(template, base, "five")  # the line that will be broken
    registry.record_evaluation("four", window)
    registry.archive(["four"])
    registry.promote([Promotion("three")], force=True, reason="good after all")
    before = registry.state
    assert (before.quarantined, before.evidence) == (set(), {})
    head = broken(base, 10)
    signalserve("registry", "repair", *at, "--yes", "--expect", head)
    state = open_store(base).view().state
    assert (state.quarantined, state.evidence, state.looks) == (set(), {}, before.looks)
    assert state.production(KEY) == "three"
    assert verify_log(base).ok


def test_a_log_that_was_cut_off_is_not_called_whole(base: Path) -> None:
    at, log = ("--registry", str(base)), base / "registry_events.jsonl"
    head = verify_log(base).head
    assert "nothing to repair" in signalserve("registry", "repair", *at, "--expect", head)
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-1]))
    told = signalserve("registry", "repair", *at, "--expect", head, code=exits.FAILED)
    assert "put a backup of it back" in told


def test_a_head_is_given_by_enough_of_it_or_the_command_says_so(base: Path) -> None:
    at = ("--registry", str(base))
    for command in ("verify-log", "repair"):
        for head in ("", "abc"):
            told = signalserve("registry", command, *at, "--expect", head, code=exits.USAGE)
            assert "first 8 characters" in told
    assert "ok: 7" in signalserve("registry", "verify-log", *at, "--expect", verify_log(base).head.upper())
    broken(base, 3)
    told = signalserve("registry", "repair", *at, "--dry-run", "--expect", "deadbeefdeadbeef")
    assert "2 events before the break" in told


def test_a_whole_log_and_a_torn_one_need_no_repair(base: Path) -> None:
    at = ("--registry", str(base))
    assert "nothing to repair: 7 events" in signalserve("registry", "repair", *at)
    with (base / "registry_events.jsonl").open("ab") as log:
        log.write(b'{"torn":')
    assert "nothing to repair: 7 events" in signalserve("registry", "repair", *at)


def test_where_there_is_no_log_there_is_nothing_to_repair(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "typo"):
        told = [
            signalserve("registry", command, "--registry", str(folder), code=exits.USAGE)
            for command in ("repair", "verify-log")
        ]
        assert told[0] == told[1]
    (tmp_path / "registry_index.csv").touch()
    told_of_none = signalserve("registry", "repair", "--registry", str(tmp_path), code=exits.STORAGE)
    assert "no log to repair" in told_of_none
    assert not (tmp_path / ".registry.lock").exists()


@pytest.mark.parametrize(
    "content", [None, b"", "\ufeffmodel_id".encode("utf-16")], ids=["gone", "empty", "UTF-16"]
)
def test_without_an_index_that_can_be_read_nothing_is_cut_off(base: Path, content: bytes | None) -> None:
    broken(base, 3)
    log, index = base / "registry_events.jsonl", base / "registry_index.csv"
    spoilt = log.read_bytes()
    if content is None:
        index.unlink()
    else:
        index.write_bytes(content)
    told = signalserve("registry", "repair", "--registry", str(base), "--yes", code=exits.STORAGE)
    assert "put it back first" in told
    assert log.read_bytes() == spoilt
