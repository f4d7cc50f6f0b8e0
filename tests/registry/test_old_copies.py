"""An index that was saved before comes back, half of one is written, or one that nobody can read."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signalserve.cli import exits
from signalserve.common.key import Key
from signalserve.registry import Promotion, verify_log
from signalserve.registry.entry import ModelRegistryEntry, Status
from signalserve.registry.errors import PreconditionError, QuarantinedError
from signalserve.registry.events import EventLog
from signalserve.registry.folder_store import open_store
from signalserve.registry.index import parse_index, render_index
from signalserve.registry.store import Draft, Origin
from tests.cli.test_commands import signalserve
from tests.registries import registry_at
from tests.small_models import register_copy, sealed_template

KEY = Key("BTCUSDT", "15m")
NAMES = [f"m{number:02}" for number in range(20)]


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty models of one key, promoted in turn: many revisions, of which the index was saved at each."""
    folder = tmp_path_factory.mktemp("copies")
    base, template = folder / "registry", sealed_template(folder / "template")
    for name in NAMES:
        register_copy(template, base, name)
        registry_at(base).promote([Promotion(name)])
        revision = open_store(base).view().state.revision
        shutil.copy(base / "registry_index.csv", folder / f"index-{revision}.csv")
    return base


@pytest.fixture
def base(master: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(master, tmp_path / "registry", copy_function=shutil.copy2))


def saved(master: Path, revision: int) -> str:
    return (master.parent / f"index-{revision}.csv").read_text()


def production(base: Path) -> str | None:
    return open_store(base).view().state.production(KEY)


def respelt(text: str) -> str:
    """As a spreadsheet saves it: sorted otherwise, quoted, with the line ends of another system."""
    header, *rows = text.splitlines()
    lines = [header, *sorted(rows, reverse=True)]
    return "\r\n".join(",".join(f'"{cell}"' for cell in line.split(",")) for line in lines) + "\r\n"


@pytest.mark.parametrize("spelling", [str, respelt])
@pytest.mark.parametrize("revision", [2, 20, 38])
def test_an_old_copy_of_any_revision_changes_nothing_and_is_asked_about(
    master: Path, base: Path, revision: int, spelling: Callable[[str], str]
) -> None:
    index = base / "registry_index.csv"
    content = spelling(saved(master, revision)).encode()
    index.write_bytes(content)
    assert production(base) == NAMES[-1]
    (problem,) = verify_log(base).problems
    assert f"statuses of revision {revision}" in problem
    assert problem in signalserve("registry", "verify-log", "--registry", str(base), code=exits.FAILED)
    # the next change keeps it aside
    register_copy(master.parent / "template", base, "further")
    assert production(base) == NAMES[-1]
    report = verify_log(base)
    assert report.ok
    (kept,) = base.glob("registry_index.aside-*.csv")
    assert kept.read_bytes() == content
    assert any(kept.name in note for note in report.notes)


def test_an_old_copy_that_was_meant_is_taken_once_somebody_says_so(master: Path, base: Path) -> None:
    at = ("--registry", str(base))
    content = saved(master, 20) + "m03,too,few\n"
    (base / "registry_index.csv").write_text(content)
    told = signalserve("registry", "accept-index", *at, "--dry-run")
    assert f"{base / 'registry_index.csv'}, of 20" in told
    assert "BTCUSDT/15m: m19 is in production, then m09" in told
    assert "m09: archived -> production" in told
    assert "m19: production -> archived" in told
    assert "m18" not in told
    assert "--yes" in signalserve("registry", "accept-index", *at, code=exits.USAGE)
    assert (base / "registry_index.csv").read_text() == content
    assert production(base) == "m19"
    signalserve("registry", "accept-index", *at, "--yes", "--reason", "back to the tenth")
    assert production(base) == "m09"
    assert verify_log(base).ok
    # rows that the copy never had are written back, as their folders stand
    assert set(open_store(base).view().state.entries) == set(NAMES)
    assert "none was kept aside" in signalserve("registry", "accept-index", *at, code=exits.NOT_FOUND)


def test_one_that_was_kept_aside_can_still_be_taken(master: Path, base: Path) -> None:
    (base / "registry_index.csv").write_text(saved(master, 20))
    register_copy(master.parent / "template", base, "further")
    (kept,) = base.glob("registry_index.aside-*.csv")
    plan = registry_at(base).plan_acceptance()
    assert (plan.index.path, plan.effect.productions) == (kept, {KEY: ("m19", "m09")})
    registry_at(base).promote([Promotion("m00")], force=True, reason="meanwhile")
    with pytest.raises(PreconditionError, match="look again"):
        registry_at(base).accept_index(confirmed=plan)
    assert production(base) == "m00"
    told = signalserve("registry", "accept-index", "--registry", str(base), "--yes")
    assert kept.name in told
    assert production(base) == "m09"
    assert list(base.glob("registry_index.aside-*.csv")) == []


def test_a_row_whose_folder_has_gone_is_not_accepted(master: Path, base: Path) -> None:
    at = ("--registry", str(base), "--yes")
    copy = base.parent / "copy.csv"
    copy.write_text(saved(master, 20).replace(str(master), "nowhere"))
    (base / "m09").rename(base.parent / "away")
    told = signalserve("registry", "accept-index", str(copy), *at, code=exits.REFUSED)
    assert "m09 would be in production for BTCUSDT/15m, and its folder is not there" in told
    assert production(base) == "m19"
    # of another registry, which has a production model and one that is not
    text = saved(master, 4).replace(str(master), "nowhere")
    copy.write_text(text.replace("m00", "theirs-0").replace("m01", "theirs-1"))
    told = signalserve("registry", "accept-index", str(copy), *at, code=exits.REFUSED)
    assert "theirs-1 would be in production" in told
    copy.write_text(copy.read_text().replace("production", "archived"))
    assert "theirs" not in signalserve("registry", "accept-index", str(copy), *at)
    assert registry_at(base).plan_acceptance(copy).effect.left_out == ("theirs-0", "theirs-1")
    assert (production(base), set(open_store(base).view().state.entries)) == ("m19", set(NAMES))


def test_an_edit_that_leads_back_to_an_earlier_state_is_asked_about(master: Path, base: Path) -> None:
    """A, B and A are promoted in turn; B by hand is what the revision before said."""
    opened = registry_at(base)
    opened.promote([Promotion("m18")], force=True, reason="back")
    opened.promote([Promotion("m19")], force=True, reason="and forth")
    index = base / "registry_index.csv"
    text = index.read_text()
    index.write_text(
        "".join(
            line.replace(",production", ",archived")
            if line.startswith("m19,")
            else line.replace(",archived", ",production")
            if line.startswith("m18,")
            else line
            for line in text.splitlines(keepends=True)
        )
    )
    view = open_store(base).view()
    assert view.state.production(KEY) == "m19"
    assert "as an old copy has" in view.asked
    assert not verify_log(base).ok
    signalserve("registry", "accept-index", "--registry", str(base), "--yes")
    assert production(base) == "m18"


@pytest.mark.parametrize("revision", [10, 24, 38])
def test_an_edited_old_copy_takes_the_edited_cell_and_nothing_else(
    master: Path, base: Path, revision: int
) -> None:
    index = base / "registry_index.csv"
    row = next(line for line in saved(master, revision).splitlines() if line.startswith("m03,"))
    cells = row.split(",")
    cells[6] = "0.125"
    index.write_text(saved(master, revision).replace(row, ",".join(cells)))
    view = open_store(base).view()
    assert view.state.production(KEY) == NAMES[-1]
    assert view.state.entries["m03"].cum_return == 0.125
    assert view.state.entries["m03"].status == "archived"
    assert f"a copy of revision {revision}" in view.remarks[0]
    assert set(view.state.entries) == set(NAMES)
    registry_at(base).record_edits()
    assert verify_log(base).ok
    assert production(base) == NAMES[-1]
    event = EventLog(base / "registry_events.jsonl").read_new().events[-1]
    assert (event.action, event.changes, event.detail["base_revision"]) == ("external_edit", (), revision)
    (kept,) = base.glob("registry_index.merged-*.csv")
    told = signalserve("registry", "verify-log", "--json", "--registry", str(base))
    assert f"whose edits were taken, as they were: {kept.name}" in told
    assert "not followed" not in told


@pytest.mark.parametrize("rows", [10, 19])
def test_a_half_written_index_takes_nothing_out_of_production(base: Path, rows: int) -> None:
    index = base / "registry_index.csv"
    lines = index.read_text().splitlines(keepends=True)
    index.write_text("".join(lines[: 1 + rows]))
    view = open_store(base).view()
    assert set(view.state.entries) == set(NAMES)
    assert view.state.production(KEY) == NAMES[-1]
    assert any("will be written back" in remark for remark in view.remarks)
    registry_at(base).promote([Promotion("m00")], force=True, reason="a change")
    assert {line.split(",")[0] for line in index.read_text().splitlines()[1:]} == set(NAMES)
    assert verify_log(base).ok


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (lambda text: text.encode("utf-16"), "none of its rows can be read"),
        (lambda text: text.replace(",", ";").encode(), "none of its rows can be read"),
        (lambda text: text.splitlines(keepends=True)[0].encode(), "no row left"),
        (lambda text: "".join(text.splitlines(keepends=True)[-4:]).encode(), "16 of 20 rows are missing"),
        (lambda text: bytes(range(256)) * 40, "none of its rows can be read"),
    ],
)
def test_an_index_that_can_not_be_read_or_lost_most_of_its_rows_is_asked_about(
    base: Path, content: Callable[[str], bytes], why: str
) -> None:
    index = base / "registry_index.csv"
    index.write_bytes(content(index.read_text()))
    view = open_store(base).view()
    assert why in view.asked
    assert set(view.state.entries) == set(NAMES)
    assert view.state.production(KEY) == NAMES[-1]
    (problem,) = verify_log(base).problems
    assert why in problem
    # nobody is sent to a command that can't take it
    assert ("accept-index" in problem, "put a copy of it back" in problem) == (
        "missing" in why,
        "missing" not in why,
    )
    registry_at(base).promote([Promotion("m00")], force=True, reason="a change")
    assert verify_log(base).ok
    assert set(open_store(base).view().state.entries) == set(NAMES)


def test_an_unreadable_index_is_not_accepted(base: Path) -> None:
    index = base / "registry_index.csv"
    content = index.read_text().encode("utf-16")
    index.write_bytes(content)
    told = signalserve("registry", "accept-index", "--registry", str(base), "--yes", code=exits.USAGE)
    assert "none of its rows can be read" in told
    assert index.read_bytes() == content
    assert list(base.glob("registry_index.aside-*.csv")) == []
    assert production(base) == NAMES[-1]
    told = signalserve(
        "registry", "accept-index", str(base / "typo.csv"), "--registry", str(base), code=exits.USAGE
    )
    assert "no such file" in told


def two_promoted(tmp_path: Path) -> Path:
    """One and two, registered and promoted in turn: nothing came after the last promote."""
    base, template = tmp_path / "two", sealed_template(tmp_path / "template")
    for name in ("one", "two"):
        register_copy(template, base, name)
        registry_at(base).promote([Promotion(name)])
    return base


def rewritten(base: Path, change: Callable[[list[str]], list[str]]) -> None:
    """Save the index with each row's cells changed."""
    index = base / "registry_index.csv"
    header, *rows = index.read_text().splitlines()
    index.write_text("\n".join([header, *(",".join(change(row.split(","))) for row in rows)]) + "\n")


def test_a_script_that_writes_new_numbers_into_a_copy_of_before_a_promote_rolls_nothing_back(
    tmp_path: Path,
) -> None:
    base = two_promoted(tmp_path)
    index = base / "registry_index.csv"
    register_copy(tmp_path / "template", base, "three")
    before = index.read_text()
    registry_at(base).promote([Promotion("three")])
    index.write_text(before)
    rewritten(base, lambda cells: [*cells[:7], "1.25", cells[8]])
    view = open_store(base).view()
    assert view.state.production(KEY) == "three"
    assert "as an old copy has" in view.asked
    registry_at(base).record_edits()
    assert production(base) == "three"


def test_an_edit_that_may_as_well_be_of_an_old_copy_is_asked_about(tmp_path: Path) -> None:
    """The statuses of two models are swapped: the revision before the promote differs in one of them alone."""
    base = two_promoted(tmp_path)
    other = {"production": "archived", "archived": "production"}
    rewritten(base, lambda cells: [*cells[:8], other[cells[8]]])
    view = open_store(base).view()
    assert view.state.production(KEY) == "two"
    assert "may be a copy of revision 3" in view.asked
    signalserve("registry", "accept-index", "--registry", str(base), "--yes")
    assert production(base) == "one"
    assert verify_log(base).ok


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[: text.rindex("production")],
        lambda text: "".join(line.rpartition(",")[0] + "\n" for line in text.splitlines()),
        lambda text: text.replace("two,BTCUSDT", "two,ETHUSDT"),
    ],
    ids=["cut off before the status", "without the status column", "another symbol"],
)
def test_what_says_no_status_or_another_symbol_moves_no_production(
    tmp_path: Path, change: Callable[[str], str]
) -> None:
    base = two_promoted(tmp_path)
    index = base / "registry_index.csv"
    index.write_text(change(index.read_text()))
    registry_at(base).record_edits()
    state = open_store(base).view().state
    assert state.productions() == {KEY: "two"}
    registry_at(base).promote([Promotion("one")], force=True, reason="it goes on")
    assert verify_log(base).ok


@pytest.mark.parametrize("cut", [len("on\n"), len("production\n"), len("/three,,,production\n")])
def test_an_old_copy_that_was_cut_off_in_its_last_row_takes_nothing_out_of_production(
    tmp_path: Path, cut: int
) -> None:
    base = two_promoted(tmp_path)
    index, opened = base / "registry_index.csv", registry_at(base)
    register_copy(tmp_path / "template", base, "three")
    opened.promote([Promotion("three")])
    before = index.read_text()
    opened.rollback([KEY], reason="it loses")
    index.write_text(before[:-cut])
    assert "may be a copy of revision 6" in open_store(base).view().asked
    opened.record_edits()
    assert (production(base), opened.state.by_hand, opened.state.unconfirmed()) == ("two", {}, {})


def test_what_is_in_production_by_hand_is_decided_on_by_a_promote_that_was_judged_and_not_by_adopting_it(
    tmp_path: Path,
) -> None:
    base = two_promoted(tmp_path)
    opened = registry_at(base)
    opened.rollback([KEY], reason="it loses")
    register_copy(tmp_path / "template", base, "three")
    status = {"one": "archived", "two": "production", "three": "success"}
    rewritten(base, lambda cells: [*cells[:8], status[cells[0]]])
    opened.record_edits()
    assert (production(base), opened.state.unconfirmed()) == ("two", {KEY: "one"})
    opened.adopt("two")
    with pytest.raises(QuarantinedError):
        opened.promote([Promotion("two")])
    state = opened.state
    assert (state.unconfirmed(), set(state.by_hand)) == ({KEY: "one"}, {"two"})
    assert "two" in state.quarantined
    opened.promote([Promotion("two", "two")], force=True, reason="it was looked at")
    state = opened.state
    assert (state.unconfirmed(), state.by_hand, state.decided) == ({}, {}, {KEY: "two"})
    assert "two" not in state.quarantined
    assert opened.promote([Promotion("two")]).revision == state.revision  # it is there already


def test_an_edit_that_was_saved_while_a_change_was_made_is_kept_aside(tmp_path: Path) -> None:
    base = two_promoted(tmp_path)
    index = base / "registry_index.csv"
    mine = index.read_text() + "mine,ETHUSDT,15m,rf,2026-01-05,nowhere,0.1,0.2,success\n"
    with open_store(base).transaction(Origin()) as turn:
        index.write_text(mine)
        turn.commit(Draft("note"))
    (kept,) = base.glob("registry_index.aside-*.csv")
    assert kept.read_text() == mine


def test_a_row_by_hand_clears_no_quarantine(base: Path) -> None:
    opened = registry_at(base)
    opened.rollback([KEY], reason="it loses")
    assert "m19" in opened.state.quarantined
    index = base / "registry_index.csv"
    row = next(line for line in index.read_text().splitlines() if line.startswith("m19,"))
    index.write_text(index.read_text().replace(row, row.replace(",archived", ",production")))
    assert "m19" in open_store(base).view().state.quarantined
    opened.record_edits()
    state = opened.state
    assert (state.production(KEY), state.conflicts()) == ("m18", {"m19": "m18"})
    assert "m19" in state.quarantined


def test_a_row_that_was_deleted_and_put_back_clears_no_quarantine(tmp_path: Path) -> None:
    base, template = tmp_path / "registry", sealed_template(tmp_path / "template")
    for name in ("one", "two"):
        register_copy(template, base, name)
        registry_at(base).promote([Promotion(name)])
    register_copy(template, base, "three")
    opened, index = registry_at(base), base / "registry_index.csv"
    opened.rollback([KEY], reason="it loses")
    row = next(line for line in index.read_text().splitlines(keepends=True) if line.startswith("two,"))
    (base / "two").rename(tmp_path / "two")
    index.write_text(index.read_text().replace(row, ""))
    opened.record_edits()
    assert set(opened.state.entries) == {"one", "three"}
    (tmp_path / "two").rename(base / "two")
    index.write_text(index.read_text() + row.replace("archived", "candidate"))
    opened.record_edits()
    assert set(opened.state.entries) == {"one", "two", "three"}
    with pytest.raises(QuarantinedError):
        opened.promote([Promotion("two")])


ENTRIES = st.dictionaries(
    st.sampled_from(NAMES),
    st.tuples(st.sampled_from(list(Status)), st.sampled_from([0.5, 1.5, float("nan")])),
    min_size=1,
)


@settings(max_examples=60, deadline=None)
@given(ENTRIES)
def test_rows_are_the_same_however_they_are_spelt(rows: dict[str, tuple[Status, float]]) -> None:
    entries = [
        ModelRegistryEntry(name, "A", "15m", "rf", "2026-01-01", sharpe=sharpe, status=status.value)
        for name, (status, sharpe) in rows.items()
    ]
    content = render_index(entries)
    known = {entry.line: entry for entry in entries}
    for spelling in (str, respelt):
        index = parse_index(spelling(content.decode()).encode(), known)
        assert {entry.line for entry in index.entries.values()} == set(known)
        assert index.unreadable == ()
