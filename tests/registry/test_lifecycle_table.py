"""The lifecycle's table is what the code does: each pair of status and action, tried."""

from __future__ import annotations

from pathlib import Path

import pytest

from signalserve.registry import Promotion, Registry, Status, register_model
from signalserve.registry import lifecycle as rules
from signalserve.registry.errors import CallerError, InvalidArgumentError, NothingToRollBackToError
from signalserve.registry.events import Action
from signalserve.registry.lifecycle import STEPS
from tests.registries import registry_at
from tests.small_models import register_copy, write_run

CALLS = {
    Action.ADOPT: lambda registry: registry.adopt("m"),
    Action.PROMOTE: lambda registry: registry.promote([Promotion("m")]),
    Action.ARCHIVE: lambda registry: registry.archive(["m"], reason="test", allow_unserved=True),
    Action.CANDIDATE: lambda registry: registry.make_candidate("m"),
}
# an archived model is restored by the call that proposes a new one, and promoted by force alone
WITH_FORCE = {(Action.PROMOTE, Status.ARCHIVED)}


def registry_with(template: Path, base: Path, status: Status) -> Registry:
    """A registry whose model `m` has a status."""
    registry = registry_at(base)
    if status == Status.FAILED:
        register_model(write_run(base / "m", "BTCUSDT"), base, "failed", error="test")
        return registry
    register_copy(template, base, "m")
    if status != Status.SUCCESS:
        registry.move("m", status)
    return registry


@pytest.mark.parametrize("status", list(Status))
@pytest.mark.parametrize("action", list(CALLS))
def test_a_step_is_taken_where_the_table_has_it_and_refused_where_not(
    tmp_path: Path, template: Path, action: Action, status: Status
) -> None:
    registry = registry_with(template, tmp_path / "registry", status)
    asked = Action.RESTORE if (action, status) == (Action.CANDIDATE, Status.ARCHIVED) else action
    known = {step.after for step in STEPS if (step.action, step.before) == (asked, status)}
    if not known or (action, status) in WITH_FORCE:
        with pytest.raises(CallerError):
            CALLS[action](registry)
        assert registry.entry("m").status == status
    else:
        CALLS[action](registry)
        assert {registry.entry("m").status} == known


def test_force_takes_an_archived_model_and_no_failed_one(tmp_path: Path, template: Path) -> None:
    for status, taken in ((Status.ARCHIVED, True), (Status.FAILED, False)):
        registry = registry_with(template, tmp_path / status, status)
        if taken:
            registry.promote([Promotion("m")], force=True, reason="test")
            assert registry.entry("m").status == "production"
        else:
            with pytest.raises(CallerError, match="never served"):
                registry.promote([Promotion("m")], force=True, reason="test")


def test_a_rollback_reaches_what_was_in_production_alone(tmp_path: Path, template: Path) -> None:
    registry = registry_with(template, tmp_path / "registry", Status.ARCHIVED)
    with pytest.raises(NothingToRollBackToError):
        registry.rollback([("BTCUSDT", "15m")], reason="test")


def test_no_entry_begins_but_as_success_or_failed(tmp_path: Path) -> None:
    meta = write_run(tmp_path / "registry" / "m", "BTCUSDT")
    for status in ("candidate", "production", "archived", "odd"):
        with pytest.raises(InvalidArgumentError, match="success or failed"):
            register_model(meta, tmp_path / "registry", status)


def test_production_is_never_removed_and_every_status_but_it_has_a_way_out() -> None:
    leaves = {step.before for step in STEPS if step.action == Action.REMOVE}
    assert leaves == set(Status) - {Status.PRODUCTION}


def test_the_table_at_the_top_of_the_file_is_the_one_that_is_executed() -> None:
    drawn = set()
    for line in (rules.__doc__ or "").splitlines():
        words = line.split()
        if not words or words[0] not in set(Action):
            continue
        before, _, rest = line[16:].partition("   ")
        after = rest.split()[0]
        froms = (
            [word.strip() for word in before.split(",")]
            if before.strip() != "any but production"
            else [status for status in Status if status != Status.PRODUCTION]
        )
        drawn |= {
            (words[0], None if one == "-" else str(one), None if after == "(deleted)" else after)
            for one in froms
        }
    executed = {
        (str(step.action), step.before and str(step.before), step.after and str(step.after)) for step in STEPS
    }
    assert drawn == executed


def test_nothing_is_recorded_of_a_model_that_may_not_be_evaluated(tmp_path: Path, template: Path) -> None:
    registry = registry_with(template, tmp_path / "registry", Status.FAILED)
    before = registry.state.revision
    with pytest.raises(CallerError, match="nothing to measure"):
        registry.record_evaluation("m", {"window_start": "2026-01-01", "window_end": "2026-01-02"})
    assert registry.state.revision == before
