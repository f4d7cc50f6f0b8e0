"""A registration touches nothing that is another model's, and speaks of nothing that is not on disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from signalserve.cli.main import main
from signalserve.registry import ModelMetadata, Selection, register_model
from signalserve.registry.errors import InvalidArgumentError, StorageError
from tests.registries import registry_at
from tests.server.conftest import serving
from tests.small_models import NAMES, register_copy, rows, sealed_template, write_run

INDEX = "model_id,symbol,timeframe,model_type,created_at,path,cum_return,sharpe,status\n"
ROW = "old,BTCUSDT,15m,logreg,2026-01-01,old,0.1,1.5,production\n"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def legacy(tmp_path: Path) -> Path:
    """One model in production by hand; no digest of it was ever taken."""
    base = tmp_path / "registry"
    write_run(base / "old", "BTCUSDT")
    (base / "registry_index.csv").write_text(INDEX + ROW)
    return base


@pytest.mark.parametrize("status", ["success", "failed"])
async def test_a_taken_id_is_refused_before_anything_is_written_so_a_served_legacy_model_still_opens(
    legacy: Path, status: str
) -> None:
    before = contents(legacy)
    with pytest.raises(InvalidArgumentError, match="'old' is taken"):
        register_model(ModelMetadata("old", "BTCUSDT", "15m", "logreg", feature_cols=NAMES), legacy, status)
    assert contents(legacy) == before
    async with serving(legacy, security={"unpickle": "always"}) as (client, _):
        prediction = await client.predict("BTCUSDT", "15m", rows(1)[0], feature_names=NAMES)
        assert prediction.model_id == "old"


def test_an_id_that_was_used_once_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    base = tmp_path / "registry"
    register_copy(sealed_template(tmp_path / "template"), base, "gone")
    registry_at(base).clean(Selection(statuses=frozenset({"success"})), delete_dirs=True)
    meta = write_run(base / "gone", "BTCUSDT")
    before = contents(base)
    with pytest.raises(InvalidArgumentError, match="'gone' is taken"):
        register_model(meta, base)
    assert contents(base) == before


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The path of every fsync of this process, in their order; the real call is made."""
    seen: list[str] = []
    fsync = os.fsync

    def recorded(descriptor: int) -> None:
        seen.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", recorded)
    return seen


def by_register(base: Path) -> None:
    register_model(ModelMetadata.read(base / "new" / "meta.json"), base)


def by_adopt(base: Path) -> None:
    (base / "registry_index.csv").write_text(INDEX + ROW.replace("old", "new"))
    with pytest.MonkeyPatch.context() as patched, pytest.raises(SystemExit) as ended:
        patched.setattr(
            "sys.argv", ["signalserve", "registry", "adopt", "new", "--yes", "--registry", str(base)]
        )
        main()
    assert not ended.value.code


@pytest.mark.parametrize("enter", [by_register, by_adopt])
def test_a_folder_that_another_program_wrote_is_on_disk_before_the_event_that_speaks_of_it(
    tmp_path: Path, synced: list[str], enter: Callable[[Path], None]
) -> None:
    base = tmp_path / "registry"
    write_run(base / "new", "BTCUSDT")
    (base / "new" / "plots").mkdir()
    (base / "new" / "plots" / "equity.svg").write_text("<svg/>")
    enter(base)
    # an adoption's first event is of the row that a hand wrote, and speaks of no digest
    last_event = max(
        number for number, path in enumerate(synced) if path == str(base / "registry_events.jsonl")
    )
    folder = base / "new"
    needed = {str(path) for path in [*folder.rglob("*"), folder, base]}
    assert needed >= {str(folder / name) for name in ("model.joblib", "manifest.json", "plots/equity.svg")}
    assert needed <= set(synced[:last_event])


def test_a_disk_that_does_not_take_a_folder_registers_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "registry"
    meta = write_run(base / "new", "BTCUSDT")
    fsync = os.fsync

    def failing(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().name == "model.joblib":
            raise OSError(5, "Input/output error")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(StorageError, match="Input/output error; nothing was registered"):
        register_model(meta, base)
    assert not (base / "registry_events.jsonl").exists()
