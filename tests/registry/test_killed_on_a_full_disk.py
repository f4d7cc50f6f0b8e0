"""Writers are killed at any instant on a disk that others fill and free, with editors at work beside them.

`SIGNALSERVE_TEST_KILLS=1000` kills so many writers.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from signalserve.registry.entry import Status
from signalserve.registry.errors import RegistryError, StorageError
from signalserve.registry.events import Action, StatusChange
from signalserve.registry.folder_store import FolderStore
from signalserve.registry.store import Draft, Origin
from tests.registries import registry_at
from tests.registry.test_killed_beside_editors import (
    assert_that_nobody_else_decided,
    edit_for_ever,
    end,
    first_in_production,
    forked,
    kill_writers,
)
from tests.registry.test_killed_writers import write_for_ever
from tests.small_disks import small_disk
from tests.small_models import register_copy, sealed_template

KILLS = int(os.environ.get("SIGNALSERVE_TEST_KILLS", "10"))


def fill_for_ever(filler: Path, seed: int) -> None:
    """Take all the room there is, and give it back."""
    dice = random.Random(seed)
    while True:
        with filler.open("wb", buffering=0) as stream:
            for size in (1 << 16, 1 << 12, 1):
                with suppress(OSError):
                    while stream.write(bytes(size)):
                        pass
        time.sleep(dice.uniform(0.0, 0.3))
        # a little of it, where an event fits and an index may not
        with suppress(OSError):
            os.truncate(filler, max(0, filler.stat().st_size - dice.choice([4096, 8192, 16384])))
        time.sleep(dice.uniform(0.0, 0.1))
        filler.unlink()
        time.sleep(dice.uniform(0.0, 0.3))


def write_as_far_as_there_is_room(template: Path, base: Path, round_number: int) -> None:
    """Go on after each write for which there was none, and leave no half folders."""
    attempt = 0
    while True:
        attempt += 1
        with suppress(OSError, shutil.Error, RegistryError):
            write_for_ever(template, base, round_number * 1000 + attempt)
        with suppress(RegistryError):
            known = FolderStore(base).view().state.entries
            for folder in base.iterdir():
                if folder.is_dir() and folder.name not in known:
                    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.filterwarnings(
    "ignore:This process.*multi-threaded:DeprecationWarning"
)  # the children only write files
def test_kills_on_a_full_disk_leave_a_log_that_verifies_and_no_production_that_nobody_decided(
    tmp_path: Path,
) -> None:
    template = sealed_template(tmp_path / "template")
    with small_disk(tmp_path / "disk", 8 + KILLS // 20) as disk, ExitStack() as children:
        base = disk / "registry"
        first_in_production(template, base)
        for beside in (
            forked(edit_for_ever, base / "registry_index.csv", 1),
            forked(fill_for_ever, disk / "filler", 2),
        ):
            children.callback(end, beside)
        kill_writers(write_as_far_as_there_is_room, template, base, KILLS)
        children.close()
        (disk / "filler").unlink(missing_ok=True)
        assert_that_nobody_else_decided(template, base, Action.PROMOTE)


def test_what_a_full_disk_refuses_was_not_done_and_what_it_takes_is_whole(tmp_path: Path) -> None:
    template = sealed_template(tmp_path / "template")
    with small_disk(tmp_path / "disk", 2) as disk:
        base = disk / "registry"
        first_in_production(template, base)
        register_copy(template, base, "second")
        store, done, before = FolderStore(base), Counter[bool](), 3
        while (
            not 1_500 < -store.log_path.stat().st_size % 4_096 < 3_500
        ):  # a few lines' room in its last page
            with store.transaction(Origin()) as turn:
                turn.commit(Draft("note", (), {"why": "x" * 128}))
            before += 1
        with (disk / "filler").open("wb", buffering=0) as stream, suppress(OSError):
            while stream.write(bytes(64)):
                pass
        for _ in range(12):
            try:
                with store.transaction(Origin()) as turn:
                    now = turn.state.entries["second"].status
                    then = Status.CANDIDATE if now == Status.SUCCESS else Status.SUCCESS
                    change = StatusChange("BTCUSDT", "15m", "second", now, then)
                    turn.commit(Draft("note", (change,), {"why": "x" * 256}))
                done[True] += 1
            except StorageError as error:
                assert "No space left on device" in str(error)
                done[False] += 1
            assert len(FolderStore(base).events()) == before + done[True]
            assert FolderStore(base).view().asked == ""
        assert done[True]
        assert done[False]
        (disk / "filler").unlink()
        registry_at(base).archive(["BTCUSDT_15m_logreg_first"], reason="test", allow_unserved=True)
        register_copy(template, base, "last")
        assert not list(base.glob("*aside*"))


def test_an_index_that_is_a_mount_point_stops_writers_and_no_reader(tmp_path: Path) -> None:
    template, base = sealed_template(tmp_path / "template"), tmp_path / "registry"
    first_in_production(template, base)
    (base / "registry_index.csv").unlink()
    with small_disk(base / "registry_index.csv", 1):
        assert "it can't be read" in FolderStore(base).view().asked
        with pytest.raises(StorageError, match="nor moved aside"):
            registry_at(base).archive(["BTCUSDT_15m_logreg_first"], reason="test", allow_unserved=True)
    registry_at(base).archive(["BTCUSDT_15m_logreg_first"], reason="test", allow_unserved=True)
