"""What a dead worker left is removed, and nothing that could be anybody else's."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from signalserve.registry import Registry, init_registry
from signalserve.training.unfinished import sweep
from tests.registries import registry_at
from tests.small_models import register_copy, sealed_template

DIES = """
import os, sys
from pathlib import Path
from signalserve.registry import new_run
from signalserve.training.unfinished import marked
with marked(Path(sys.argv[1]), "1", "AAA/15m") as marker:
    with new_run(sys.argv[2], "AAA", "15m", "logreg", announce=marker.announce) as run:
        (run.path / "model.joblib").write_bytes(b"half")
        if sys.argv[3] == "renamed":
            run.commit()
        os._exit(9)
"""


class Died:
    """A registry, and what a worker left that died in mid-run."""

    def __init__(self, folder: Path, *, renamed: bool) -> None:
        self.output, self.base = folder / "retrain", folder / "models"
        init_registry(self.base)
        stage = "renamed" if renamed else "hidden"
        command = [sys.executable, "-c", DIES, str(self.output), str(self.base), stage]
        assert subprocess.run(command, check=False).returncode == 9
        [self.left] = [path for path in self.base.iterdir() if path.is_dir()]
        [self.marker] = (self.output / "running").iterdir()

    @property
    def registry(self) -> Registry:
        return registry_at(self.base)

    def folders(self) -> set[str]:
        return {path.name for path in self.base.iterdir() if path.is_dir()}


@pytest.fixture(params=[False, True], ids=["hidden", "renamed"])
def died(request: pytest.FixtureRequest, tmp_path: Path) -> Died:
    return Died(tmp_path, renamed=request.param)


def test_the_folder_that_the_marker_names_goes_and_those_of_similar_names_stay(died: Died) -> None:
    name = died.left.name.removeprefix(".building-")
    similar = {f"{name}_2", f".building-{name}_2", ".building-AAA_15m_logreg_29991231_235959", f"{name}.bak"}
    for other in similar:
        (died.base / other).mkdir()
    assert sweep(died.output, died.registry).removed == (died.left.name,)
    assert died.folders() == similar
    assert not died.marker.exists()
    assert sweep(died.output, died.registry).removed == ()


def test_another_programs_folder_of_the_very_name_stays(died: Died, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    died.left.rename(tmp_path / "aside")
    (tmp_path / "other").rename(died.left)
    assert sweep(died.output, died.registry).removed == ()
    assert died.folders() == {died.left.name}


def test_a_link_in_its_place_stays_and_so_does_what_it_leads_to(died: Died, tmp_path: Path) -> None:
    died.left.rename(tmp_path / "aside")
    died.left.symlink_to(tmp_path / "aside")
    assert sweep(died.output, died.registry).removed == ()
    assert (tmp_path / "aside" / "model.joblib").exists()


def test_what_was_begun_on_another_host_stays_and_so_does_its_marker(died: Died) -> None:
    content = json.loads(died.marker.read_text())
    died.marker.write_text(json.dumps(content | {"host": "elsewhere"}))
    assert sweep(died.output, died.registry).kept == (died.left.name,)
    assert died.folders() == {died.left.name}
    died.marker.write_text(json.dumps(content))
    assert sweep(died.output, died.registry).removed == (died.left.name,)


def test_what_is_held_by_a_living_process_stays(died: Died) -> None:
    descriptor = os.open(died.left, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    assert sweep(died.output, died.registry).kept == (died.left.name,)
    os.close(descriptor)
    assert sweep(died.output, died.registry).removed == (died.left.name,)


def no_folder_is_locked(real: Callable[..., Any], descriptor: int, flags: int) -> None:
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        raise OSError(errno.EBADF, "Bad file descriptor")  # as NFS says of a folder
    real(descriptor, flags)


def everyone_gets_the_lock(real: Callable[..., Any], descriptor: int, flags: int) -> None:
    if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
        real(descriptor, flags)


@pytest.mark.parametrize("flock", [no_folder_is_locked, everyone_gets_the_lock])
def test_on_a_file_system_without_locks_everything_stays(
    died: Died, monkeypatch: pytest.MonkeyPatch, flock: Callable[..., None]
) -> None:
    real = fcntl.flock
    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", lambda descriptor, flags: flock(real, descriptor, flags))
        assert sweep(died.output, died.registry).kept == (died.left.name,)
        assert died.registry.plan_clean(delete_dirs=True).folders == ()
    assert died.left.is_dir()
    assert died.marker.exists()


def test_what_was_registered_after_all_stays(tmp_path: Path) -> None:
    died = Died(tmp_path, renamed=True)
    inode = died.left.stat().st_ino
    register_copy(sealed_template(tmp_path / "template"), died.base, "model")
    content = json.loads(died.marker.read_text())
    content["runs"] = [{"model_id": "model", "inode": (died.base / "model").stat().st_ino}]
    died.marker.write_text(json.dumps(content))
    assert sweep(died.output, died.registry).removed == ()
    assert not died.marker.exists()
    assert died.left.stat().st_ino == inode


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"runs": [{"model_id": "..", "inode": "x"}]}', b'{"host": "h", "runs": 3}', b"\xff"],
)
def test_a_marker_that_says_nothing_removes_nothing(tmp_path: Path, content: bytes) -> None:
    died = Died(tmp_path, renamed=False)
    died.marker.write_bytes(content)
    assert sweep(died.output, died.registry).removed == ()
    assert died.left.is_dir()
