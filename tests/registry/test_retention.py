"""`max_models_per_symbol_tf` removes entries and their folders, and says what it spared."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from signalserve.common.key import Key
from signalserve.registry import ModelMetadata, Promotion, list_models, new_run, verify_log
from signalserve.registry.artefact import Artefacts
from signalserve.registry.events import EventLog
from signalserve.registry.folders import delete_folders
from signalserve.registry.lock import LOCK_FILE
from signalserve.registry.state import RegistryState
from tests.registries import registry_at
from tests.small_models import register_copy

KEY = Key("BTCUSDT", "15m")


@pytest.fixture
def base(tmp_path: Path, template: Path) -> Path:
    """From old to new: `back` was in production before `live`; `pinned`, `first`, `second`."""
    base = tmp_path / "registry"
    for day, name in enumerate(("back", "live", "pinned", "first", "second"), 1):
        register_copy(template, base, name, created_at=f"2026-01-0{day}T00:00:00+00:00")
    for name in ("back", "live"):
        registry_at(base).promote([Promotion(name)])
    return base


def ids(base: Path) -> set[str]:
    return {entry.model_id for entry in list_models(base)}


def folders(base: Path) -> set[str]:
    return {path.name for path in base.iterdir() if path.is_dir()}


def register(base: Path, template: Path, model_id: str = "new", **more: Any) -> None:
    given = {"created_at": "2026-02-01T00:00:00+00:00", "max_models": 1, "pins": ["pinned"]}
    register_copy(template, base, model_id, **(given | more))


def test_folders_go_with_their_entries_and_what_is_spared_is_said(
    base: Path, template: Path, caplog: pytest.LogCaptureFixture
) -> None:
    register_copy(template, base, "undated", created_at="last spring")
    with caplog.at_level(logging.INFO, logger="signalserve.registry"):
        register(base, template)
    assert ids(base) == folders(base) == {"back", "live", "pinned", "undated", "new"}
    [said] = [record.getMessage() for record in caplog.records if "registry.retention" in record.getMessage()]
    assert "removed=['second', 'first']" in said
    for text in (
        "'live': 'in production for BTCUSDT/15m'",
        "'back': 'rollback target of BTCUSDT/15m'",
        "'pinned': 'pinned in the configuration'",
        "'undated': \"of unknown age (created_at is 'last spring')\"",
    ):
        assert text in said
    assert verify_log(base).ok
    assert registry_at(base).rollback([KEY], reason="bad day").transitions[0].model_id == "back"


def test_folders_go_after_the_commit_and_while_nobody_is_kept_waiting(
    base: Path, template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone: list[str] = []
    real = shutil.rmtree

    def removed(folder: Path, **how: Any) -> None:
        if how:  # a helper's own
            return
        events = EventLog(base / "registry_events.jsonl").read_new().events
        retired = {change.model_id for event in events for change in event.changes if change.after is None}
        assert folder.name in retired
        with FileLock(base / LOCK_FILE, timeout=0, is_singleton=False):
            gone.append(folder.name)
        real(folder)

    monkeypatch.setattr("signalserve.registry.folders.shutil.rmtree", removed)
    register(base, template)
    assert gone == ["second", "first"]


def test_a_models_files_are_hashed_before_the_lock_is_taken(
    base: Path, template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[bool] = []
    registry = registry_at(base)
    real = registry.artefact_of

    def looked_at(state: Any, model_id: str) -> Any:
        artefact = real(state, model_id)
        verify = artefact.verify

        def verified() -> Any:
            held.append(registry.store.awaited() > 0 or _is_locked(base))
            return verify()

        monkeypatch.setattr(artefact, "verify", verified)
        return artefact

    monkeypatch.setattr(registry, "artefact_of", looked_at)
    shutil.copytree(template, base / "new")
    meta = ModelMetadata("new", *KEY, "logreg", created_at="2026-02-01", feature_cols=list("abcde"))
    meta.write(base / "new" / "meta.json")
    registry.register(meta, keep=1)
    assert held == [False]


def _is_locked(base: Path) -> bool:
    lock = FileLock(base / LOCK_FILE, is_singleton=False)
    try:
        lock.acquire(timeout=0)
    except TimeoutError:
        return True
    lock.release()
    return False


def test_a_link_stays_and_so_does_what_another_entry_needs_or_a_process_holds(
    base: Path, template: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (base / "first").rename(tmp_path / "elsewhere")
    (base / "first").symlink_to(tmp_path / "elsewhere")
    index = base / "registry_index.csv"
    other = f"other,ETHUSDT,15m,logreg,2026-01-01,{base / 'second'},0,0,success\n"
    index.write_text(index.read_text() + other)
    with new_run(base, "BTCUSDT", "15m", "logreg") as run:
        shutil.copytree(template, run.path, dirs_exist_ok=True)
        run.commit()
        shutil.copytree(run.final_path, tmp_path / "copy")
        register_copy(tmp_path / "copy", base, "third", created_at="2026-01-09T00:00:00+00:00")
        shutil.rmtree(base / "third")
        run.final_path.rename(base / "third")  # the folder that is held
        with caplog.at_level(logging.WARNING, logger="signalserve.registry"):
            register(base, template)
    assert ids(base) == {"back", "live", "pinned", "new", "other"}
    assert {"first", "second", "third"} <= folders(base)
    assert (tmp_path / "elsewhere" / "model.onnx").is_file()
    said = " ".join(record.getMessage() for record in caplog.records)
    assert "model_id='first' why='it is a link'" in said
    assert "model_id='second' why='the path of other leads there'" in said
    assert "model_id='third' why='a process may be at work on it'" in said


def test_no_name_leads_out_of_the_registry(base: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    names = ["..", ".", "", "../elsewhere", str(tmp_path / "elsewhere"), "first/.."]
    kept = delete_folders(Artefacts(base), names, RegistryState())
    assert kept == dict.fromkeys(names, "its name leads elsewhere")
    assert (tmp_path / "elsewhere").is_dir()
    assert folders(base) == ids(base)


def test_a_folder_that_can_not_be_deleted_fails_no_registration(
    base: Path, template: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(folder: Path, **how: Any) -> None:
        if how:  # a helper's own
            return
        raise PermissionError(13, "Permission denied", str(folder))

    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING, logger="signalserve.registry"):
        patched.setattr("signalserve.registry.folders.shutil.rmtree", refused)
        register(base, template)
    assert ids(base) == {"back", "live", "pinned", "new"}
    assert "registry.folder_not_deleted model_id='first'" in caplog.text
    done = registry_at(base).clean(delete_dirs=True)
    assert {folder.name for folder in done.folders} == {"first", "second"}
    assert folders(base) == ids(base)
