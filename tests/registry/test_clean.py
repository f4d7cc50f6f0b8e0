"""Clean removes what the options select, never what must stay, with an event for each thing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from registry import (
    ModelMetadata,
    Selection,
    clean,
    list_models,
    new_run,
    plan_clean,
    promote_model,
    register_model,
    verify_log,
)
from registry.errors import InvalidArgumentError
from registry.events import EventLog
from registry.runs import is_being_built
from tests.small_models import register_copy, sealed_template


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sealed_template(tmp_path_factory.mktemp("template") / "t")


@pytest.fixture
def base(tmp_path: Path, template: Path) -> Path:
    """Five models of one key: `old` to `new`; `old` was in production before `second`; one failed run."""
    base = tmp_path / "registry"
    now = datetime.now(UTC)
    for name, days in (("old", 100), ("second", 80), ("third", 60), ("fourth", 40), ("new", 1)):
        register_copy(template, base, name, created_at=(now - timedelta(days=days)).isoformat())
    register_model(
        ModelMetadata("bad", "BTCUSDT", "15m", "logreg", created_at=(now - timedelta(days=90)).isoformat()),
        base,
        "failed",
        error="no bars",
        pins=(),
    )
    (base / "bad").mkdir()
    promote_model("old", base_dir=base)
    promote_model("second", base_dir=base)
    return base


def ids(base: Path) -> set[str]:
    return {entry.model_id for entry in list_models(base)}


def test_old_models_go_and_production_pins_and_the_rollback_target_stay(base: Path) -> None:
    plan = clean(base, {"third"}, selection=Selection(older_than=timedelta(days=30)))
    assert set(plan.entries) == {"fourth", "bad"}
    assert plan.kept["third"].endswith("it is pinned in the configuration")
    assert "rollback target" in plan.kept["old"]
    assert "in production" in plan.kept["second"]
    assert ids(base) == {"old", "second", "third", "new"}
    assert verify_log(base).ok


def test_the_conditions_are_met_together(base: Path) -> None:
    assert set(plan_clean(base, (), selection=Selection(statuses=frozenset({"failed"}))).entries) == {"bad"}
    both = Selection(older_than=timedelta(days=50), statuses=frozenset({"success"}))
    assert set(plan_clean(base, (), selection=both).entries) == {"third"}
    newest = Selection(keep=1, statuses=frozenset({"success"}))
    assert set(plan_clean(base, (), selection=newest).entries) == {"third", "fourth"}
    assert plan_clean(base, ()).entries == {}


def test_each_thing_that_goes_has_an_event_of_its_own_with_what_it_was(base: Path) -> None:
    clean(base, (), selection=Selection(keep=1), delete_dirs=True, reason="spring")
    assert not (base / "fourth").exists()
    events = EventLog(base / "registry_events.jsonl").read_new()[1][-6:]
    removed = [event for event in events if event.action == "clean"]
    assert {change.model_id for event in removed for change in event.transitions} == {
        "third",
        "fourth",
        "bad",
    }
    assert all(len(event.transitions) == 1 and event.reason == "spring" for event in removed)
    fourth = next(event for event in removed if event.transitions[0].model_id == "fourth")
    assert fourth.detail["removed"][0]["meta"]["model_id"] == "fourth"
    assert [event.detail["folder"] for event in events if event.action == "delete_dir"] == [
        "bad",
        "fourth",
        "third",
    ]
    assert verify_log(base).ok


def test_production_can_not_be_selected(base: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="not production"):
        Selection(statuses=frozenset({"production"}))
    with pytest.raises(InvalidArgumentError, match="not odd"):
        Selection(statuses=frozenset({"odd"}))


def test_a_run_directory_says_whether_a_living_process_builds_it(tmp_path: Path) -> None:
    with new_run(tmp_path, "BTCUSDT", "15m", "rf") as run:
        assert is_being_built(run.path)
        final = run.commit()
        assert is_being_built(final)
    assert not is_being_built(final)
    assert not is_being_built(tmp_path / "nothing")
