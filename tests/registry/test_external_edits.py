"""The index is edited by hand and by programs that know nothing of the lock."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signalserve.common.key import Key
from signalserve.registry import Promotion, list_models, verify_log
from signalserve.registry.events import EventLog
from signalserve.registry.folder_store import open_store
from tests.registries import registry_at
from tests.small_models import register_copy, sealed_template

KEY = Key("BTCUSDT", "15m")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Three models of one key, the first two promoted in turn."""
    base, template = tmp_path / "registry", sealed_template(tmp_path / "template")
    for name in ("one", "two", "three"):
        register_copy(template, base, name)
    registry_at(base).promote([Promotion("one")])
    registry_at(base).promote([Promotion("two")])
    return base


def edit(base: Path, *changes: tuple[str, str]) -> None:
    """Rewrite the index in place, as an editor does."""
    path = base / "registry_index.csv"
    text = path.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)


def row(base: Path, name: str) -> str:
    return next(
        line for line in (base / "registry_index.csv").read_text().splitlines() if line.startswith(name + ",")
    )


def test_a_production_archived_by_hand_is_honoured_and_recorded_by_the_next_writer(base: Path) -> None:
    edit(base, (row(base, "two"), row(base, "two").replace("production", "archived")))
    assert open_store(base).view().state.production(KEY) is None
    assert not verify_log(base).ok
    registry_at(base).promote([Promotion("three", "")])
    events = EventLog(base / "registry_events.jsonl").read_new().events
    assert [event.action for event in events[-2:]] == ["external_edit", "promote"]
    assert verify_log(base).ok


def test_of_two_production_rows_the_one_that_the_log_promoted_wins_and_the_other_is_flagged(
    base: Path,
) -> None:
    edit(base, (row(base, "three"), row(base, "three").replace("success", "production")))
    state = open_store(base).view().state
    assert state.production(KEY) == "two"
    assert state.conflicts() == {"three": "two"}


def test_a_production_moved_by_hand_is_the_new_one_and_a_rollback_finds_the_old_one(base: Path) -> None:
    edit(
        base,
        (row(base, "two"), row(base, "two").replace("production", "archived")),
        (row(base, "three"), row(base, "three").replace("success", "production")),
    )
    assert open_store(base).view().state.production(KEY) == "three"
    registry_at(base).rollback([KEY], reason="by hand was wrong")
    assert open_store(base).view().state.production(KEY) == "two"


def test_a_rewrite_by_a_program_that_read_an_older_index_loses_nothing_of_ours(
    base: Path, tmp_path: Path
) -> None:
    stale = (base / "registry_index.csv").read_text()
    register_copy(tmp_path / "template", base, "four")
    registry_at(base).promote([Promotion("four")])
    note = row(base, "three")
    (base / "registry_index.csv").write_text(stale.replace(note, note.replace("success", "archived")))
    state = open_store(base).view().state
    assert state.production(KEY) == "four"
    assert state.entries["three"].status == "archived"
    assert state.entries["two"].status == "archived"


def test_a_row_added_by_hand_is_listed_and_one_that_was_deleted_with_its_folder_is_gone(base: Path) -> None:
    shutil.rmtree(base / "three")
    edit(base, (row(base, "three") + "\n", "by_hand,ETHUSDT,15m,rf,2026-01-05,nowhere,0.1,0.2,success\n"))
    assert {entry.model_id for entry in list_models(base)} == {"one", "two", "by_hand"}
    registry_at(base).promote([Promotion("two")], request_id="a writer records it")
    assert {entry.model_id for entry in list_models(base)} == {"one", "two", "by_hand"}
    assert verify_log(base).ok


def test_an_unreadable_row_is_reported_and_survives_every_rewrite(base: Path) -> None:
    path = base / "registry_index.csv"
    path.write_text(path.read_text() + "garbage,row\nbad,BTCUSDT,15m,rf,2026,p,not a number,1,success\n")
    assert [unreadable.why for unreadable in open_store(base).view().unreadable] == [
        "has 2 cells, not 9",
        "cum_return 'not a number' is not a number",
    ]
    registry_at(base).promote([Promotion("three")])
    text = path.read_text()
    assert "garbage,row\n" in text
    assert "not a number" in text
    assert len(open_store(base).view().unreadable) == 2
    assert verify_log(base).ok


SPOILT: dict[str, Callable[[str], str]] = {
    "a status that is none": lambda text: text.replace(",production", ",prodction"),
    "a number that is none": lambda text: text.replace("two,BTCUSDT", "two,BTCUSDT,"),
    "semicolons": lambda text: text.replace(",", ";"),
    "quotes and semicolons": lambda text: "".join(f'"{line}"\n' for line in text.splitlines()),
    "cut off in the last row": lambda text: text[: text.rindex("three") + 14],
    "nothing left": lambda _: "\n",
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_a_spoilt_row_takes_no_model_away(base: Path, spoil: Callable[[str], str]) -> None:
    path = base / "registry_index.csv"
    before = {entry.model_id: entry.status for entry in list_models(base)}
    path.write_text(spoil(path.read_text()))
    view = open_store(base).view()
    assert {entry.model_id: entry.status for entry in list_models(base)} == before
    assert view.state.production(KEY) == "two"
    registry_at(base).promote([Promotion("three")])
    after = {"one": "archived", "two": "archived", "three": "production"}
    assert {entry.model_id: entry.status for entry in list_models(base)} == after
    assert {row.text for row in view.unreadable} <= set(path.read_text().splitlines())
    assert verify_log(base).ok


def test_a_changed_byte_anywhere_in_the_log_is_caught(base: Path) -> None:
    log = base / "registry_events.jsonl"
    content = log.read_bytes()
    assert verify_log(base).ok

    @settings(max_examples=150, deadline=None)
    @given(st.integers(0, len(content) - 2), st.integers(1, 127))
    def flip(position: int, mask: int) -> None:
        changed = bytearray(content)
        changed[position] ^= mask
        log.write_bytes(changed)
        assert not verify_log(base).ok

    flip()


def test_a_line_that_was_cut_out_of_the_log_is_caught(base: Path) -> None:
    log = base / "registry_events.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    for gone in range(len(lines)):
        log.write_bytes(b"".join(lines[:gone] + lines[gone + 1 :]))
        assert not verify_log(base).ok
