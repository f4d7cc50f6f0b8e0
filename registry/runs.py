"""Run directories: built under a hidden name, renamed when whole.

Who builds one holds a lock on the folder until its model is registered or the folder is gone, so that nobody
who clears up after dead writers takes a living one's work.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from pathlib import Path

from signalserve.common.files import sync_folder, sync_tree
from signalserve.common.moments import in_utc, second_text, utc_now
from signalserve.registry.identifiers import check_name

BUILDING_PREFIX = ".building-"

Announce = Callable[["RunDirectory"], None]


@dataclass
class RunDirectory:
    """A run directory on its way into the registry.

    Write every file into `path`, then call `commit`; without it the folder is removed at the end of the
    `with` block.
    """

    model_id: str
    created_at: str
    path: Path
    final_path: Path
    committed: bool = field(default=False, init=False)

    def commit(self) -> Path:
        """Make the folder durable and give it its final name, `{base_dir}/{model_id}`."""
        sync_tree(self.path)
        self.path.rename(self.final_path)
        sync_folder(self.final_path.parent)
        self.committed = True
        return self.final_path


@contextmanager
def new_run(
    base_dir: Path | str,
    symbol: str,
    timeframe: str,
    model_type: str,
    *,
    clock: Callable[[], datetime] = utc_now,
    announce: Announce | None = None,
) -> Iterator[RunDirectory]:
    """Reserve a model_id and give a hidden folder to fill.

    Ids are `{symbol}_{timeframe}_{model_type}_{timestamp}`; a second run within one second gets a
    counter behind the timestamp. `announce` is told of the folder while it is empty.

    Raises:
        InvalidArgumentError: a name can't be part of a folder's name.
    """
    for what, value in (("symbol", symbol), ("timeframe", timeframe), ("model_type", model_type)):
        check_name(what, value)
    base = Path(base_dir)
    base.mkdir(parents=True, exist_ok=True)
    moment = in_utc(clock())
    stem = f"{symbol}_{timeframe}_{model_type}_{moment:%Y%m%d_%H%M%S}"
    run = _reserve(base, stem, second_text(moment))
    try:
        with _locked(run.path):
            if announce is not None:
                announce(run)
            yield run
    finally:
        if not run.committed:
            shutil.rmtree(run.path, ignore_errors=True)


def is_being_built(folder: Path) -> bool:
    """Whether a living process may be at work on a run directory, under its hidden or its final name.

    That is so of a folder that is held, and of one on a file system that holds none, or that can't be looked at.
    """
    try:
        with _locked(folder, must=True):
            return _is_free(folder)  # held by us, so it is not, unless every lock is given to everyone
    except FileNotFoundError:
        return False
    except OSError:
        return True


def _is_free(folder: Path) -> bool:
    try:
        with _locked(folder, must=True):
            return True
    except BlockingIOError:
        return False


@contextmanager
def _locked(folder: Path, *, must: bool = False) -> Iterator[None]:
    """Hold the folder's lock; it goes with the process, and follows the folder when that is renamed."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if must:  # a builder goes on without: some network file systems lock no folders
                raise
        yield
    finally:
        os.close(descriptor)


def _reserve(base: Path, stem: str, created_at: str) -> RunDirectory:
    for number in count(1):
        model_id = stem if number == 1 else f"{stem}_{number}"
        check_name("model_id", model_id)
        hidden, final = base / f"{BUILDING_PREFIX}{model_id}", base / model_id
        try:
            os.mkdir(hidden)  # noqa: PTH102 - exclusive: it is the reservation of the id
        except FileExistsError:
            continue
        if final.exists():
            hidden.rmdir()
            continue
        return RunDirectory(model_id, created_at, hidden, final)
    raise AssertionError("count() does not end")
