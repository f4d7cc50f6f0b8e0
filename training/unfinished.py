"""Which run directories the jobs of a retrain have begun, so that what a dead worker left is told from all else.

1. While a job runs, a file in `{retrain.output_dir}/running` names what it builds: the model_id, and the inode of its
   folder. A file that is left tells of a worker that died.
2. `sweep` deletes a folder of that name and inode which is unregistered and held by nobody, and no other.
3. Where that can't be told (begun on another host, a file system without locks, a registry that can't be read), the
   folder stays, and so does the file that names it.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from signalserve.common.files import write_atomically
from signalserve.registry import Registry
from signalserve.registry.errors import StorageError
from signalserve.registry.runs import BUILDING_PREFIX, RunDirectory, is_being_built

RUNNING = "running"


@dataclass
class Marker:
    """The file of one job."""

    path: Path
    key: str
    runs: list[dict[str, Any]] = field(default_factory=list)

    def announce(self, run: RunDirectory) -> None:
        """Name a run directory that the job has just made."""
        self.runs.append({"model_id": run.model_id, "inode": run.path.stat().st_ino})
        self.write()

    def write(self) -> None:
        """Write the file; a reader sees all of it or the one before."""
        content = {"key": self.key, "host": platform.node(), "pid": os.getpid(), "runs": self.runs}
        write_atomically(self.path, json.dumps(content).encode(), durable=False)


@contextmanager
def marked(output_dir: Path, job_id: str, key: str) -> Iterator[Marker]:
    """Have a job's file there for the length of the block."""
    folder = output_dir / RUNNING
    folder.mkdir(parents=True, exist_ok=True)
    marker = Marker(folder / f"{job_id}.{platform.node()}.{os.getpid()}.json", key)
    marker.write()
    try:
        yield marker
    finally:
        marker.path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Swept:
    """The names of the folders that were removed, and of those that stay because their builder may be alive."""

    removed: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()


def sweep(output_dir: Path, registry: Registry) -> Swept:
    """Remove the run directories that workers which died left unregistered.

    Call it when no worker of a retrain runs.
    """
    removed: list[str] = []
    kept: list[str] = []
    for path in sorted((output_dir / RUNNING).glob("*.json")):
        try:
            known = registry.state.used_ids
            content = json.loads(path.read_text(encoding="utf-8"))
            here = content["host"] == platform.node()
            begun = [(str(run["model_id"]), int(run["inode"])) for run in content.get("runs", ())]
        except (OSError, StorageError, LookupError, TypeError, ValueError, AttributeError):
            continue
        left = [folder for run in begun for folder in _left(registry.artefacts.base_dir, *run, known)]
        for folder in left:
            if here and not is_being_built(folder):
                shutil.rmtree(folder, ignore_errors=True)
            (kept if folder.is_dir() else removed).append(folder.name)
        if not any(folder.is_dir() for folder in left):
            path.unlink(missing_ok=True)
    return Swept(tuple(removed), tuple(kept))


def _left(base: Path, model_id: str, inode: int, known: Collection[str]) -> Iterator[Path]:
    """The run directory, under its hidden or its final name, where it stands there unregistered."""
    if model_id in known or Path(model_id).name != model_id:
        return
    for folder in (base / f"{BUILDING_PREFIX}{model_id}", base / model_id):
        try:
            found = folder.lstat()
        except OSError:
            continue
        if stat.S_ISDIR(found.st_mode) and found.st_ino == inode:
            yield folder
