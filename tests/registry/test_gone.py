"""A registry that was there and has gone is an error, no empty registry, and nobody makes another in its place."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from signalserve.cli import exits
from signalserve.registry import (
    ModelMetadata,
    Promotion,
    get_latest_model,
    init_registry,
    list_models,
    load_registry,
    open_registry,
    register_model,
    verify_log,
)
from signalserve.registry.errors import LogCorruptError, RegistryGoneError, RegistryMissingError, StorageError
from signalserve.registry.folder_store import FolderStore
from signalserve.registry.store import Origin
from tests.cli.test_commands import signalserve
from tests.registries import registry_at
from tests.small_models import register_copy, write_run


def with_a_log(base: Path, template: Path) -> None:
    register_copy(template, base, "m")


def with_an_index_alone(base: Path, template: Path) -> None:
    del template
    write_run(base / "m", "BTCUSDT")
    (base / "registry_index.csv").write_text(
        "model_id,symbol,timeframe,model_type,created_at,path,cum_return,sharpe,status\n"
        "m,BTCUSDT,15m,logreg,2026-01-01,m,0.1,1.0,success\n"
    )


@pytest.mark.parametrize("make", [with_a_log, with_an_index_alone])
@pytest.mark.parametrize("mount_point", [False, True])
def test_readers_and_writers_say_so_and_leave_nothing_in_its_place(
    make: Callable[[Path, Path], None], mount_point: bool, template: Path, tmp_path: Path
) -> None:
    base = tmp_path / "registry"
    make(base, template)
    registry = registry_at(base)
    assert registry.entry("m").status == "success"
    events = registry.events()
    away = base.rename(tmp_path / "unmounted")
    if mount_point:
        base.mkdir()
    for attempt in (
        registry.store.check,
        registry.models,
        registry.events,
        lambda: registry.archive(["m"]),
        lambda: registry.promote([Promotion("m")], force=True, reason="try"),
        registry.clean,
        lambda: registry.adopt("m"),
        lambda: register_model(ModelMetadata("n", "BTCUSDT", "15m", "logreg"), base, "failed"),
        lambda: init_registry(base),
    ):
        with pytest.raises(RegistryGoneError) as gone:
            attempt()
        # what is made in its place stands in the way when the disk is back
        assert "bring it back (do not make another)" in str(gone.value)
        assert "init" not in str(gone.value)
    assert base.exists() == mount_point
    if mount_point:
        assert list(base.iterdir()) == []
        base.rmdir()
    away.rename(base)
    registry.store.check()
    assert registry.events() == events
    registry.archive(["m"])
    assert registry.entry("m").status == "archived"


@pytest.mark.parametrize("mount_point", [False, True])
def test_an_empty_registry_that_goes_is_missed_too(mount_point: bool, tmp_path: Path) -> None:
    base = tmp_path / "registry"
    assert init_registry(base)
    assert not init_registry(base)
    registry = open_registry(base)
    assert registry.models() == []
    assert list(registry.events()) == []
    shutil.rmtree(base)
    if mount_point:
        base.mkdir()
    for read in (registry.models, registry.events, registry.store.check):
        with pytest.raises(RegistryGoneError, match="has gone from"):
            read()


@pytest.mark.parametrize("mount_point", [False, True])
def test_where_no_registry_ever_was_readers_and_writers_say_so_and_make_none(
    mount_point: bool, tmp_path: Path
) -> None:
    base = tmp_path / "typo"
    if mount_point:
        base.mkdir()
    store = FolderStore(base)
    registry = open_registry(base)

    def change() -> None:
        with store.transaction(Origin()):
            pass

    for attempt in (store.check, store.view, store.events, change, registry.models, registry.clean):
        with pytest.raises(RegistryMissingError, match="registry init") as missing:
            attempt()
        assert not isinstance(missing.value, RegistryGoneError)
    assert not verify_log(base).ok
    assert (list(base.iterdir()) if mount_point else base.exists()) == ([] if mount_point else False)


@pytest.mark.parametrize("made", ["missing", "mkdir", "init"])
def test_research_code_finds_nothing_before_its_first_model_which_makes_the_registry(
    made: str, template: Path, tmp_path: Path
) -> None:
    base = tmp_path / "registry"
    if made == "mkdir":
        base.mkdir()
    elif made == "init":
        init_registry(base)
    assert load_registry(base) == list_models(base) == []
    assert get_latest_model(base, "BTCUSDT", "15m") is None
    register_copy(template, base, "m")
    assert [entry.model_id for entry in list_models(base)] == ["m"]
    report = verify_log(base)
    assert (report.ok, report.events, report.notes) == (True, 1, ())


def test_an_index_that_is_put_beside_an_empty_log_is_imported(tmp_path: Path) -> None:
    base = tmp_path / "registry"
    init_registry(base)
    assert verify_log(base).ok
    with_an_index_alone(base, tmp_path)
    assert [entry.model_id for entry in list_models(base)] == ["m"]
    (note,) = verify_log(base).notes
    assert "imports the index" in note
    (base / "m" / "manifest.json").write_text("{}")  # of elsewhere
    with pytest.raises(LogCorruptError):
        registry_at(base).archive(["m"])
    (base / "m" / "manifest.json").unlink()
    registry_at(base).adopt("m")
    assert [event.action for event in FolderStore(base).events()] == ["external_edit", "adopt"]
    assert verify_log(base).ok


def test_a_first_event_that_can_not_be_written_leaves_no_empty_log(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "registry"
    with_a_log(base, template)
    (base / "registry_events.jsonl").unlink()  # as the runbook says where there is no backup
    real = os.fsync

    def fails(descriptor: int) -> None:
        if "registry_events" in os.path.realpath(f"/proc/self/fd/{descriptor}"):
            raise OSError(28, "No space left on device")
        real(descriptor)

    store = FolderStore(base)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fails)
        with pytest.raises(StorageError, match="No space"), store.transaction(Origin()):
            pass
    assert not list(base.glob("*registry_events*"))
    with store.transaction(Origin()):
        pass
    assert FolderStore(base).view().state.revision == 1


def test_a_folder_that_is_a_file_is_no_registry_and_none_is_made_in_it(tmp_path: Path) -> None:
    base = tmp_path / "file"
    base.write_text("")
    with pytest.raises(RegistryMissingError):
        FolderStore(base).check()
    with pytest.raises(StorageError):
        init_registry(base)


@pytest.mark.parametrize("emptied", [False, True])
@pytest.mark.parametrize("sealed", [False, True])
def test_an_index_whose_log_has_gone_is_no_legacy_one(
    sealed: bool, emptied: bool, template: Path, tmp_path: Path
) -> None:
    """A registered model is sealed; a legacy registry was changed once, which left its lock."""
    made, base = tmp_path / "made", tmp_path / "registry"
    (with_a_log if sealed else with_an_index_alone)(made, template)
    if not sealed:
        assert verify_log(made).ok
        registry_at(made).archive(["m"])
    made.rename(base)
    log = base / "registry_events.jsonl"
    whole = log.read_bytes()
    log.unlink()
    if emptied:
        log.touch()
    told = signalserve("registry", "verify-log", "--registry", str(base), code=exits.FAILED)
    assert ("the log has gone or was emptied" in told) != (sealed and emptied)
    assert "docs/registry.md" in told
    assert ("m was registered or adopted" in told, ".registry.lock" in told) == (sealed, not sealed)
    log.write_bytes(whole)
    assert verify_log(base).ok


@pytest.mark.parametrize("left", [b"", b"\n", b'{"half'], ids=["nothing", "an empty line", "half a line"])
def test_a_log_that_was_emptied_is_no_new_one_to_who_had_read_it_and_to_who_starts_on_it(
    left: bytes, template: Path, tmp_path: Path
) -> None:
    base = tmp_path / "registry"
    with_a_log(base, template)
    registry, log = registry_at(base), base / "registry_events.jsonl"
    registry.promote([Promotion("m")])
    assert registry.state.revision == 2
    whole, index = log.read_bytes(), (base / "registry_index.csv").read_bytes()
    log.write_bytes(left)
    for store, error in ((registry.store, RegistryGoneError), (FolderStore(base), LogCorruptError)):
        for attempt in (store.view, store.events, lambda of=store: of.transaction(Origin()).__enter__()):
            with pytest.raises(error, match="was emptied"):
                attempt()
    told = signalserve("registry", "repair", "--registry", str(base), code=exits.STORAGE)
    assert "docs/registry.md" in told
    assert (log.read_bytes(), (base / "registry_index.csv").read_bytes()) == (left, index)
    log.write_bytes(whole)
    assert (registry.state.revision, registry.view().alarm) == (2, "")
    # without it, as the runbook says
    log.unlink()
    assert not FolderStore(base).view().state.digests
