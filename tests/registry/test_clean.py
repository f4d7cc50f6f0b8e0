"""Clean removes what the options select, never what must stay, with an event for each thing."""

from __future__ import annotations

import shutil
import sys
from contextlib import redirect_stdout
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from unittest import mock

import pytest
from filelock import FileLock

from signalserve.cli.main import main
from signalserve.common.key import Key
from signalserve.registry import (
    ModelMetadata,
    Promotion,
    Selection,
    list_models,
    new_run,
    promote_model,
    register_model,
    verify_log,
)
from signalserve.registry.errors import InvalidArgumentError
from signalserve.registry.events import EventLog
from signalserve.registry.lock import LOCK_FILE
from signalserve.registry.runs import is_being_built
from tests.registries import gate_of, registry_at
from tests.small_models import register_copy, write_run


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
    promote_model("old", base_dir=base, gate=gate_of())
    promote_model("second", base_dir=base, gate=gate_of())
    return base


def ids(base: Path) -> set[str]:
    return {entry.model_id for entry in list_models(base)}


def test_old_models_go_and_production_pins_and_the_rollback_target_stay(base: Path) -> None:
    plan = registry_at(base, pins={"third"}).clean(selection=Selection(older_than=timedelta(days=30)))
    assert set(plan.entries) == {"fourth", "bad"}
    assert plan.kept["third"].endswith("it is pinned in the configuration")
    assert "rollback target" in plan.kept["old"]
    assert "in production" in plan.kept["second"]
    assert ids(base) == {"old", "second", "third", "new"}
    assert verify_log(base).ok


def test_the_conditions_are_met_together(base: Path) -> None:
    assert set(registry_at(base).plan_clean(selection=Selection(statuses=frozenset({"failed"}))).entries) == {
        "bad"
    }
    both = Selection(older_than=timedelta(days=50), statuses=frozenset({"success"}))
    assert set(registry_at(base).plan_clean(selection=both).entries) == {"third"}
    newest = Selection(keep=1, statuses=frozenset({"success"}))
    assert set(registry_at(base).plan_clean(selection=newest).entries) == {"third", "fourth"}
    assert registry_at(base).plan_clean().entries == {}


def test_each_thing_that_goes_has_an_event_of_its_own_with_what_it_was(base: Path) -> None:
    registry_at(base).clean(selection=Selection(keep=1), delete_dirs=True, reason="spring")
    registry_at(base).clean(
        selection=Selection(statuses=frozenset({"failed"})), delete_dirs=True, reason="spring"
    )
    assert not (base / "fourth").exists()
    events = EventLog(base / "registry_events.jsonl").read_new().events[-6:]
    removed = [event for event in events if event.action == "clean"]
    assert {change.model_id for event in removed for change in event.changes} == {
        "third",
        "fourth",
        "bad",
    }
    assert all(len(event.changes) == 1 and event.reason == "spring" for event in removed)
    fourth = next(event for event in removed if event.changes[0].model_id == "fourth")
    assert fourth.detail["removed"][0]["meta"]["model_id"] == "fourth"
    assert [event.detail["folder"] for event in events if event.action == "delete_dir"] == [
        "fourth",
        "third",
        "bad",
    ]
    assert verify_log(base).ok


def test_a_folder_goes_after_its_event_and_while_nobody_is_kept_waiting(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone: list[str] = []
    real = shutil.rmtree

    def removed(folder: Path) -> None:
        events = EventLog(base / "registry_events.jsonl").read_new().events
        assert folder.name in {event.detail.get("folder") for event in events if event.action == "delete_dir"}
        with FileLock(base / LOCK_FILE, timeout=0, is_singleton=False):
            gone.append(folder.name)
        real(folder)

    monkeypatch.setattr("signalserve.registry.folders.shutil.rmtree", removed)
    registry_at(base).clean(selection=Selection(keep=1), delete_dirs=True)
    assert gone == ["fourth", "third"]


def test_a_folder_that_can_not_be_deleted_is_said_and_a_later_clean_takes_it(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(folder: Path) -> None:
        raise PermissionError(13, "Permission denied", str(folder))

    with monkeypatch.context() as patched:
        patched.setattr("signalserve.registry.folders.shutil.rmtree", refused)
        done = registry_at(base).clean(selection=Selection(keep=1), delete_dirs=True)
    assert set(done.entries) == {"third", "fourth"}
    assert done.folders == ()
    assert done.kept["third"] == f"its folder could not be deleted: {base / 'third'}: Permission denied"
    later = registry_at(base).clean(delete_dirs=True)
    assert [folder.name for folder in later.folders] == ["fourth", "third"]
    assert not (base / "third").exists()


def test_no_folder_goes_that_is_not_the_models_own(base: Path, template: Path, tmp_path: Path) -> None:
    inner = base / "third" / "sub"
    shutil.copytree(template, inner)
    (base / "notebooks").mkdir()
    (base / "notebooks" / "work.ipynb").write_text("{}")
    shutil.copytree(base / "fourth", base / "copied")
    shutil.copytree(template, tmp_path / "away")
    index = base / "registry_index.csv"
    rows = {"inner": inner, "notebooks": "", "copied": "", "away": tmp_path / "away"}
    text = "".join(f"{name},ETHUSDT,15m,rf,2026-01-01,{path},,,success\n" for name, path in rows.items())
    index.write_text(index.read_text() + text)
    registry_at(base).promote([Promotion("new")])
    selection = Selection(statuses=frozenset({"success", "failed"}))
    pins = {"inner", "old"}
    plan = registry_at(base, pins=pins).plan_clean(selection, delete_dirs=True)
    done = registry_at(base, pins=pins).clean(selection, delete_dirs=True, confirmed=plan)
    assert done == plan
    assert {folder.name for folder in done.folders} == {"fourth", "bad"}
    assert done.kept["third"] == "its folder stays: the folder of inner lies in it"
    assert done.kept["notebooks"].startswith("its folder stays: nothing says that it is a model's: ")
    assert done.kept["copied"] == "its folder stays: its meta.json is of fourth"
    assert done.kept["away"] == f"its folder is {tmp_path / 'away'}, which stays"
    for folder in (inner, base / "notebooks", base / "copied", tmp_path / "away"):
        assert any(folder.iterdir())
    assert registry_at(base, pins=pins).plan_clean(delete_dirs=True).folders == ()
    assert verify_log(base).ok


def test_a_folder_that_was_written_since_its_model_left_stays_and_so_does_one_that_others_link_into(
    base: Path, template: Path
) -> None:
    registry_at(base).clean(Selection(keep=1), delete_dirs=True)  # third and fourth
    write_run(base / "third", "BTCUSDT")  # research code is at work
    shutil.copytree(template, base / "fourth")
    (base / "fourth" / "manifest.json").write_text("{}")
    for name in ("model.onnx", "golden.npz"):
        (base / "new" / name).unlink()
        (base / "new" / name).symlink_to(f"../old/{name}")
    selection = Selection(statuses=frozenset({"archived", "failed"}))
    registry_at(base).promote([Promotion("new")])
    plan = registry_at(base).plan_clean(selection, delete_dirs=True)
    done = registry_at(base).clean(selection, delete_dirs=True, confirmed=plan)
    assert done == plan
    assert [folder.name for folder in done.folders] == ["bad"]
    assert "old" in done.entries
    for name in ("third", "fourth"):
        why = "its folder stays: its manifest.json is not the one that the log knows: it was written since"
        assert done.kept[name] == why
    assert done.kept["old"].endswith(" of new is a link into it")
    assert (base / "new" / "model.onnx").is_file()


def test_a_rollback_target_without_artefacts_goes_and_it_is_said(base: Path) -> None:
    registry_at(base).promote([Promotion("third")])
    registry_at(base).promote([Promotion("fourth")])
    shutil.rmtree(base / "third")
    (base / "second" / "model.joblib").unlink()
    for pinned in ({"third"}, set()):
        plan = registry_at(base, pins=pinned).plan_clean()
        assert ("third" in plan.entries) != bool(pinned)
    printed = StringIO()
    with (
        redirect_stdout(printed),
        mock.patch.object(sys, "argv", ["signalserve", "registry", "clean", "--registry", str(base)]),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    assert not ended.value.code
    lost = "; it was a rollback target of BTCUSDT/15m, and can't be rolled back to"
    assert f"drop third: {base / 'third'} is missing{lost}\n" in printed.getvalue()
    assert f"drop second: {base / 'second' / 'model.joblib'} is missing{lost}\n" in printed.getvalue()
    assert ids(base) == {"old", "fourth", "new", "bad"}
    assert verify_log(base).ok
    result = registry_at(base).rollback([Key("BTCUSDT", "15m")], reason="bad day")
    assert result.transitions[0].model_id == "old"


def test_failed_runs_do_not_push_out_good_models(base: Path) -> None:
    for number in range(3):
        meta = ModelMetadata(
            f"bad{number}", "BTCUSDT", "15m", "logreg", created_at=datetime.now(UTC).isoformat()
        )
        register_model(meta, base, "failed", error="no bars", pins=())
        (base / meta.model_id).mkdir()
    plan = registry_at(base).plan_clean(selection=Selection(keep=2))
    assert set(plan.entries) == {"third", "bad", "bad0"}


def test_nothing_goes_that_was_not_in_the_plan_that_was_shown(base: Path, template: Path) -> None:
    selection = Selection(keep=1)
    shown = registry_at(base).plan_clean(selection=selection, delete_dirs=True)
    assert set(shown.entries) == {"third", "fourth"}
    promote_model("third", base_dir=base, gate=gate_of())
    register_copy(template, base, "newest", created_at=datetime.now(UTC).isoformat())
    done = registry_at(base).clean(selection=selection, delete_dirs=True, confirmed=shown)
    assert set(done.entries) == {"fourth"}
    assert [folder.name for folder in done.folders] == ["fourth"]
    assert ids(base) == {"old", "second", "third", "new", "newest", "bad"}


def test_every_earlier_production_model_up_to_the_first_that_verifies_stays(
    base: Path, template: Path
) -> None:
    for name in ("third", "fourth", "new"):
        promote_model(name, base_dir=base, gate=gate_of())
    (base / "fourth" / "golden.npz").unlink()
    plan = registry_at(base).plan_clean(selection=Selection(keep=0))
    assert set(plan.entries) == {"old", "second", "bad"}
    assert {name for name, why in plan.kept.items() if "rollback target" in why} == {"third", "fourth"}


def test_the_folder_of_a_pinned_model_stays_also_when_its_entry_is_gone(base: Path) -> None:
    plan = registry_at(base).clean(Selection(statuses=frozenset({"success"})))
    assert "third" in plan.entries
    assert base / "third" not in registry_at(base, pins={"third"}).plan_clean(delete_dirs=True).folders
    assert base / "third" in registry_at(base).plan_clean(delete_dirs=True).folders


def test_a_model_of_unknown_age_goes_by_no_age(base: Path, template: Path) -> None:
    register_copy(template, base, "undated", created_at="last spring")
    for selection in (Selection(older_than=timedelta(days=30)), Selection(keep=1)):
        plan = registry_at(base).plan_clean(selection=selection)
        assert "undated" not in plan.entries
        assert plan.kept["undated"] == "success, of unknown age (created_at is 'last spring')" + (
            ", beyond the newest 1" if selection.keep else ""
        )
    status = Selection(statuses=frozenset({"success"}))
    assert "undated" in registry_at(base).plan_clean(selection=status).entries


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
