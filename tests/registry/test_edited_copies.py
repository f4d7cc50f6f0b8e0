"""Old copies of the index, edited or cut off: what was not edited in them takes no model out of production."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from signalserve.common.key import Key
from signalserve.registry import Promotion, promote_model
from signalserve.registry.entry import COLUMNS, ModelRegistryEntry, Status
from signalserve.registry.events import Action, Event, StatusChange
from signalserve.registry.folder_store import open_store
from signalserve.registry.index import render_index
from signalserve.registry.outside import external_edit, judge, laid_over, productions_moved
from signalserve.registry.projections import Projections
from signalserve.registry.state import RegistryState
from tests.registries import registry_at
from tests.small_models import register_copy, sealed_template

KEY = Key("BTCUSDT", "15m")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sealed_template(tmp_path_factory.mktemp("template") / "t")


def forced(base: Path, name: str) -> None:
    registry_at(base).promote([Promotion(name)], force=True, reason="test")


def first_rows(text: str, rows: int) -> str:
    return "".join(text.splitlines(keepends=True)[: 1 + rows])


def edited(text: str, **statuses: str) -> str:
    rows = (row.split(",") for row in text.splitlines())
    return "".join(",".join([*row[:8], statuses.get(row[0], row[8])]) + "\n" for row in rows)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda text: first_rows(text, 4), "may be a copy of revision 8 that was cut off"),
        (lambda text: edited(first_rows(text, 1), a="candidate"), "6 of 7 rows are missing"),
        (lambda text: edited(text, d="archived"), "may be a copy of an earlier revision that was edited"),
        (lambda text: edited(first_rows(text, 4), d="archived"), "may be a copy of an earlier revision"),
    ],
    ids=["cut off", "one row left", "edited", "edited and cut off"],
)
def test_an_old_copy_takes_nothing_out_of_production_by_what_it_did_not_edit(
    tmp_path: Path, template: Path, change: Callable[[str], str], why: str
) -> None:
    base = tmp_path / "registry"
    for name in ("a", "b", "c", "d", "e", "f"):
        register_copy(template, base, name)
    registry_at(base).promote([Promotion("a")])
    forced(base, "b")
    old = (base / "registry_index.csv").read_text()
    for name in ("c", "d"):
        promote_model(name, "archived", base, reason="idle")
    forced(base, "c")
    register_copy(template, base, "g")
    (base / "registry_index.csv").write_text(change(old))
    view = open_store(base).view()
    assert (view.state.production(KEY), why in view.asked) == ("c", True), view.asked
    registry_at(base).record_edits()
    register_copy(template, base, "h")
    assert open_store(base).view().state.production(KEY) == "c"
    assert len(list(base.glob("registry_index.aside-*.csv"))) == 1


def test_an_edit_that_the_revision_before_with_one_more_explains_as_well_is_asked_about(
    tmp_path: Path, template: Path
) -> None:
    """After a rollback the model that came back is archived by hand: or the copy of before, with the other one so."""
    base = tmp_path / "registry"
    for name in ("a", "b"):
        register_copy(template, base, name)
        forced(base, name)
    registry_at(base).rollback([KEY], reason="it loses")
    index = base / "registry_index.csv"
    index.write_text(edited(index.read_text(), a="archived"))
    assert "it changes what is in production" in open_store(base).view().asked
    register_copy(template, base, "c")
    assert open_store(base).view().state.production(KEY) == "a"
    # of a revision that none before it resembles
    index.write_text(edited(index.read_text(), a="archived"))
    assert open_store(base).view().state.production(KEY) is None


@pytest.mark.parametrize("edits", [0, 1, 2, 3])
@pytest.mark.parametrize("cut", [False, True])
def test_no_production_changes_but_by_a_cell_that_was_edited(edits: int, cut: bool) -> None:
    followed = 0
    for seed in range(250):
        chance = random.Random(seed * 8 + 2 * edits + cut)
        state, copies, projections = a_log(chance)
        rows = list(chance.choice(copies))
        if cut:
            del rows[chance.randint(1, len(rows)) :]
        chosen = chance.sample(range(len(rows)), min(edits, len(rows)))
        for place in chosen:
            others = [status for status in Status if status != rows[place].status]
            rows[place] = rows[place].with_status(chance.choice(others))
        found = judge(render_index(rows), state, projections, unfinished=False, stands=lambda *_: True)
        if found.edit is None or not found.edit.changes:
            continue
        followed += 1
        draft = external_edit(state, found.edit)
        moved = productions_moved(state, laid_over(state, draft))
        by_hand = {rows[place].model_id for place in chosen}
        for change in draft.changes:
            if Key(change.symbol, change.timeframe) in moved and "production" in (
                change.before,
                change.after,
            ):
                assert change.model_id in by_hand, (seed, draft.changes)
    assert bool(followed) == bool(edits)


def a_log(
    chance: random.Random,
) -> tuple[RegistryState, list[tuple[ModelRegistryEntry, ...]], Projections]:
    """A registry of two keys after some events, and the rows that its index had after each."""
    state, projections = RegistryState(), Projections()
    copies: list[tuple[ModelRegistryEntry, ...]] = []
    for number in range(chance.randint(5, 18)):
        names = list(state.entries)
        if len(names) < 3 or chance.random() < 0.4:
            line = f"m{number},{chance.choice('AB')},15m,t,2026-01-01T00:00:00+00:00,x,,,success"
            entry = ModelRegistryEntry.from_row(dict(zip(COLUMNS, line.split(","), strict=True)))
            changes = [StatusChange(*entry.key, entry.model_id, None, "success")]
            event = made(state, Action.REGISTER, changes, entry)
        else:
            entry = state.entries[chance.choice(names)]
            after = chance.choice(["production", "production", "archived"])
            current = state.production(entry.key)
            if entry.status == after or (after == "archived" and current == entry.model_id):
                continue
            changes = [StatusChange(*entry.key, entry.model_id, entry.status, after)]
            if after == "production" and current:
                changes.insert(0, StatusChange(*entry.key, current, "production", "archived"))
            event = made(state, Action.PROMOTE, changes)
        state.apply(event)
        projections.take(event, state)
        copies.append(tuple(state.entries.values()))
    return state, copies, projections


def made(
    state: RegistryState, action: str, changes: list[StatusChange], *entries: ModelRegistryEntry
) -> Event:
    detail = {"entries": [entry.to_row() for entry in entries]}
    return Event(state.revision + 1, "", "", "", action, changes=tuple(changes), detail=detail)
