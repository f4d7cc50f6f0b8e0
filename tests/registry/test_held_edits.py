"""What was put into production by hand: what decisions build on where it is held, and what it can become."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from signalserve.common.key import Key
from signalserve.config.evidence import PromotionSettings
from signalserve.registry import Promotion, Registry, Transition
from signalserve.registry.errors import (
    GateRefusedError,
    InProductionError,
    NothingToRollBackToError,
    StaleExpectationError,
    WrongStatusError,
)
from signalserve.registry.queries import warnings_of
from tests.cli.test_commands import signalserve
from tests.registries import registry_at
from tests.small_models import register_copy, sealed_template

KEY = Key("BTCUSDT", "15m")
LOOK = {"window_start": "2026-02-01T00:00:00+00:00", "window_end": "2026-03-01T00:00:00+00:00"}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sealed_template(tmp_path_factory.mktemp("template") / "t")


@pytest.fixture
def base(tmp_path: Path, template: Path) -> Path:
    """Models of one key, `old` and then `good` promoted; `hand` and `next` never."""
    base = tmp_path / "registry"
    for name in ("old", "good", "hand"):
        register_copy(template, base, name)
    for name in ("old", "good"):
        registry_at(base).promote([Promotion(name)])
    register_copy(template, base, "next")
    return base


@pytest.fixture
def held(base: Path) -> Registry:
    """The registry where edits are held, after one that put `hand` into production."""
    by_hand(base, good="archived", hand="production")
    return holding(base)


def holding(base: Path) -> Registry:
    return registry_at(base, PromotionSettings(gate="none", hand_edits="hold"))


def at(base: Path) -> tuple[str, str]:
    return "--registry", str(base)


def by_hand(base: Path, **statuses: str) -> None:
    """Edit status cells; a word in another cell makes sure that it is no copy of an earlier index."""
    index = base / "registry_index.csv"
    lines = [line.split(",") for line in index.read_text().splitlines()]
    for cells in lines:
        if cells[0] in statuses:
            cells[3], cells[8] = f"{cells[3]}x", statuses[cells[0]]
    index.write_text("".join(",".join(cells) + "\n" for cells in lines))
    registry_at(base).record_edits()


def test_where_edits_are_held_a_challenger_is_held_against_what_was_decided(held: Registry) -> None:
    follows = registry_at(held.artefacts.base_dir)
    assert follows.record_evaluation("next", LOOK).record["champion"] == "hand"
    assert follows.record_evaluation("hand", LOOK).record["champion"] == "good"
    assert held.record_evaluation("next", LOOK).record["champion"] == "good"
    with pytest.raises(StaleExpectationError, match="expected hand in production, found good"):
        held.promote([Promotion("next", "hand")])
    done = held.promote([Promotion("next", "good")])
    assert done.transitions == (Transition(*KEY, "next", "good"),)
    assert [held.entry(name).status for name in ("good", "hand")] == ["archived", "archived"]


def test_a_promote_where_edits_are_held_turns_an_edit_down_or_takes_it(held: Registry) -> None:
    strict = registry_at(held.artefacts.base_dir, PromotionSettings(hand_edits="hold"))
    with pytest.raises(GateRefusedError):
        strict.promote([Promotion("hand")])
    strict.promote([Promotion("good", "good")])  # without any evidence: it is served already
    assert (held.state.productions(), held.state.unconfirmed()) == ({KEY: "good"}, {})
    by_hand(held.artefacts.base_dir, good="archived", hand="production")
    held.promote([Promotion("hand", "good")], force=True, reason="it was meant")
    assert (held.state.decided, held.state.by_hand) == ({KEY: "hand"}, {})


@pytest.mark.parametrize("row", ["archived", "candidate"])
def test_what_is_served_though_its_row_was_edited_away_is_archived_by_a_word_alone(
    base: Path, row: str
) -> None:
    by_hand(base, good=row, hand="production")
    held = holding(base)
    with pytest.raises(InProductionError):
        held.archive(["good"])
    held.archive(["good"], allow_unserved=True, reason="it is bad")
    assert (held.state.decided, held.entry("good").status) == ({}, "archived")
    held.archive(["hand"])  # it serves nothing
    assert held.state.productions() == {}


@pytest.mark.parametrize("row", ["archived", "candidate", "production"])
def test_where_edits_are_held_a_rollback_leaves_what_is_served_and_leads_to_none_by_hand_alone(
    base: Path, row: str
) -> None:
    by_hand(base, good=row, hand="production")
    if row == "production":
        by_hand(base, hand="archived")  # the edit was undone
    held = holding(base)
    assert held.rollback([KEY], reason="it is bad", expected=["good"]).transitions == (
        Transition(*KEY, "old", "good"),
    )
    assert held.state.productions() == held.state.decided == {KEY: "old"}
    assert (held.state.quarantined, held.entry("good").status) == ({"good"}, "archived")
    with pytest.raises(NothingToRollBackToError):
        held.rollback([KEY], reason="worse still")


def test_where_edits_are_followed_a_rollback_to_one_by_hand_alone_leaves_it_marked(base: Path) -> None:
    followed = registry_at(base)
    by_hand(base, good="archived", hand="production")
    followed.promote([Promotion("next")])
    followed.rollback([KEY], reason="it is bad")
    assert (followed.state.production(KEY), set(followed.state.by_hand)) == ("hand", {"hand"})
    followed.promote([Promotion("next")], force=True, reason="a test")
    followed.rollback(
        [KEY], reason="it is bad"
    )  # that `hand` is back was decided, so it is no longer by hand
    assert (followed.state.production(KEY), followed.state.by_hand) == ("hand", {})


def test_what_was_confirmed_is_a_rollback_target_where_edits_are_held(held: Registry) -> None:
    held.confirm()
    held.promote([Promotion("next")])
    assert held.rollback([KEY], reason="it is bad").transitions == (Transition(*KEY, "hand", "next"),)


def test_a_legacy_registry_s_production_is_a_rollback_target_where_edits_are_held(base: Path) -> None:
    legacy = shutil.copytree(base, base.parent / "legacy")
    (legacy / "registry_events.jsonl").unlink()
    held = holding(legacy)
    for name in ("good", "next"):
        held.adopt(name)
    held.promote([Promotion("next")])
    assert held.rollback([KEY], reason="it is bad").transitions[0].model_id == "good"
    assert held.state.by_hand == {}


def test_the_mark_outlasts_a_confirmation_and_being_taken_out_and_put_back_by_hand(
    base: Path, held: Registry, template: Path
) -> None:
    done = held.confirm(reason="it was meant")
    assert done is not None
    assert done.transitions == (Transition(*KEY, "hand", "good"),)
    register_copy(template, base, "later")
    by_hand(base, good="production", hand="archived")
    assert held.state.is_by_hand("hand", hold=True)  # it is served
    assert not held.state.is_by_hand("hand")
    register_copy(template, base, "latest")
    by_hand(base, good="archived", hand="production")
    assert held.state.is_by_hand("hand")
    assert held.record_evaluation("hand", LOOK).record["champion"] is None  # what had been decided is itself
    held.promote([Promotion("hand")])  # judged, by a gate that asks for nothing
    with pytest.raises(WrongStatusError, match="it is the champion"):
        held.record_evaluation("hand", LOOK)
    assert not held.state.is_by_hand("hand")


def test_a_confirmation_says_what_is_left_with_nothing_and_what_is_quarantined_still(
    base: Path, template: Path
) -> None:
    registry_at(base).rollback([KEY], reason="it is bad")
    register_copy(template, base, "later")  # so that what follows is no old copy
    by_hand(base, old="archived", good="production")
    told = signalserve("registry", "confirm", *at(base))
    assert f"{KEY}: good; what was decided before is old" in told
    assert "good stays quarantined" in told
    register_copy(template, base, "latest")
    by_hand(base, good="archived")
    told = signalserve("registry", "confirm", *at(base))
    assert f"{KEY}: nothing, so nothing will be served; what was decided before is good" in told


def test_an_accepted_index_decides_on_what_was_shown_and_says_what_is_served(
    base: Path, template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGNALSERVE__PROMOTION__HAND_EDITS", "hold")
    for name in ("e1", "e2"):
        register_copy(template, base, name, symbol="ETHUSDT")
    registry_at(base).promote([Promotion("e1")])
    eth, index, file = Key("ETHUSDT", "15m"), base / "registry_index.csv", base.parent / "mine.csv"
    by_hand(base, e1="archived", e2="production")
    # a file of one key decides on nothing else, though another one waits
    file.write_text("".join(row for row in index.read_text().splitlines(keepends=True) if "ETH" not in row))
    file.write_text(file.read_text().replace(",success", ",candidate"))
    told = signalserve("registry", "accept-index", str(file), *at(base), "--yes")
    assert ("ETHUSDT" in told, "candidate" in told) == (False, True)
    assert registry_at(base).state.unconfirmed() == {eth: "e1"}
    # the index as it is has nothing to change, and what waits is taken with it
    told = signalserve("registry", "accept-index", str(index), *at(base), "--yes")
    assert f"{eth}: e2 is taken; e1 is served until then" in told
    assert registry_at(base).state.unconfirmed() == {}
    assert "nothing changed" in signalserve("registry", "accept-index", str(index), *at(base), "--yes")
    # what is turned down was never served
    before = index.read_text()
    by_hand(base, e2="archived", e1="production")
    file.write_text(before)
    told = signalserve("registry", "accept-index", str(file), *at(base), "--yes")
    assert f"{eth}: e2 is served and stays; the edit to e1 is not taken" in told
    assert registry_at(base).state.decided[eth] == "e2"


def test_accepting_an_index_says_what_was_recorded_and_no_file_that_is_gone(
    base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index = base / "registry_index.csv"
    old = index.read_text()
    index.write_text(old.replace("next,BTCUSDT,15m,logreg", "next,BTCUSDT,15m,other"))
    told = signalserve("registry", "accept-index", str(index), *at(base), "--yes")
    assert "what was edited by hand is recorded, as revision" in told
    registry_at(base).promote([Promotion("hand")])
    index.write_text(old)
    opened = registry_at(base)
    opened.accept_index(confirmed=opened.plan_acceptance())
    assert opened.state.productions() == {KEY: "good"}
    assert "kept_aside" not in caplog.text
    assert list(base.glob("registry_index.aside-*")) == []


def test_a_key_that_is_named_twice_is_confirmed_once(held: Registry) -> None:
    done = held.confirm([KEY, KEY])
    assert done is not None
    assert done.transitions == (Transition(*KEY, "hand", "good"),)


def test_an_edit_that_deletes_what_was_decided_leaves_that_waiting(base: Path) -> None:
    held, index = holding(base), base / "registry_index.csv"
    shutil.rmtree(base / "good")
    rows = index.read_text().splitlines(keepends=True)
    index.write_text("".join(row for row in rows if not row.startswith("good,")))
    held.record_edits()
    assert (held.standing(held.state, KEY), held.state.unconfirmed()) == (None, {KEY: "good"})
    assert any("good went by hand" in text for text in warnings_of(held.view(), index="it", hold=True))
    done = held.confirm()
    assert done is not None
    assert done.transitions == (Transition(*KEY, "", "good"),)
    assert held.state.unconfirmed() == {}


def test_a_clean_keeps_what_was_decided_on_though_its_row_and_its_files_are_gone(
    base: Path, held: Registry
) -> None:
    shutil.rmtree(base / "good")
    plan = held.clean()
    assert plan.entries == {}
    assert "decided on as production" in plan.kept["good"]


def test_second_rows_by_hand_neither_come_up_by_an_archive_nor_are_quarantined_by_a_rollback(
    base: Path,
) -> None:
    followed = registry_at(base)
    by_hand(base, next="production")
    followed.archive(["good"], allow_unserved=True, reason="it is bad")
    assert (followed.state.productions(), followed.entry("next").status) == ({}, "archived")
    followed.promote([Promotion("hand")])
    by_hand(base, next="production")
    followed.rollback([KEY], reason="it is bad")
    assert (followed.state.production(KEY), followed.state.quarantined) == ("good", {"hand"})
