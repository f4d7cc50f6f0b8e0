"""A registry that was there and has gone is an error, no empty registry, and nobody makes another in its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from signalserve.registry import Promotion, open_registry
from signalserve.registry.errors import RegistryMissingError
from tests.registries import registry_at
from tests.small_models import register_copy, sealed_template, write_run


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sealed_template(tmp_path_factory.mktemp("gone") / "template")


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
    ):
        with pytest.raises(RegistryMissingError):
            attempt()
    assert base.exists() == mount_point
    if mount_point:
        assert list(base.iterdir()) == []
        base.rmdir()
    away.rename(base)
    registry.store.check()
    assert registry.events() == events
    registry.archive(["m"])
    assert registry.entry("m").status == "archived"


def test_an_empty_registry_that_goes_is_missed_too(tmp_path: Path) -> None:
    base = tmp_path / "registry"
    base.mkdir()
    registry = open_registry(base)
    assert registry.models() == []
    assert list(registry.events()) == []
    base.rmdir()
    for read in (registry.models, registry.events):
        with pytest.raises(RegistryMissingError, match="registry init"):
            read()


def test_a_folder_that_was_never_there_has_no_models_and_is_not_made(tmp_path: Path) -> None:
    registry = open_registry(tmp_path / "typo")
    assert registry.models() == []
    assert list(registry.events()) == []
    with pytest.raises(RegistryMissingError, match="registry init"):
        registry.clean()
    assert not (tmp_path / "typo").exists()
