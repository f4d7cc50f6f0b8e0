"""`registry_index.csv` as it lies on a disk: read with what tells whether it changed, and replaced in two steps.

1. What shall be the index is written beside it before its event is committed, and renamed into its place after. So a
   reader finds out without any clock whether an index is late, as its writer was stopped in between, or was put
   there: a late one has the newest index lying beside it, or where the disk had no room for that, a link that names
   its hash, which takes none.
2. A link stays, and what it leads to is replaced; mode and group stay.
3. What can't be read, such as a folder or far too large a file, is told and not waited for, and moved aside whole.
"""

from __future__ import annotations

import os
import re
import stat
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from signalserve.common.files import (
    behind_links,
    open_regular,
    read_opened,
    read_regular,
    sha256_hex,
    sync_folder,
    write_aside,
)
from signalserve.common.log import LibraryLog
from signalserve.common.moments import utc_now
from signalserve.registry.index import LARGEST_INDEX

# what lay in the index's place and could not be read
UNREAD_PREFIX = "registry_index.unread-"
_log = LibraryLog("registry")

# what a writer of one of the registry's files or of a copy kept aside leaves where it is killed
_LEFT = re.compile(
    r"\.registry_(index|events|checkpoint)(\.(aside|merged)-[0-9a-f]+)?\.(csv|jsonl)\.\d+\.tmp"
)

# so short a one takes no block of a disk
_SHORT_LINK = 32


class Mark(NamedTuple):
    """By which a file is told from what it was: another inode, size or time; zeros where there is none.

    `changed` is when anything of it changed, its name or its mode too, in ns; no program can set it.
    """

    inode: int = 0
    size: int = 0
    modified: int = 0
    changed: int = 0


NOWHERE = Mark()


@dataclass(frozen=True)
class Lying:
    """What lies in the index's place: its bytes, None for none, or in `problem` why they can't be read.

    `mark` is the file's that was read. `late`: its writer was stopped before it put the newest one there; with
    `no_room` the disk had none for it.
    """

    content: bytes | None = None
    problem: str = ""
    mark: Mark = NOWHERE
    late: bool = False
    no_room: bool = False

    @cached_property
    def digest(self) -> str:
        """The sha256 of its bytes; empty for none."""
        return "" if self.content is None else sha256_hex(self.content)


class IndexFile:
    """The file at a path. Who writes holds the registry's lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._announced: bytes | None = None

    def read(self) -> Lying:
        """What lies there now. Never fails."""
        before = mark_of(self.path)
        try:
            with open_regular(self.path) as stream:
                mark = _mark(os.fstat(stream.fileno()))
                return Lying(read_opened(stream, self.path, largest=LARGEST_INDEX), mark=mark)
        except FileNotFoundError:
            return Lying()
        except OSError as error:
            return Lying(problem=error.strerror or str(error), mark=before)

    def is_late(self, newest: str, *, whole: bool = False) -> bool:
        """Whether a writer was stopped, or is at work, between its event and the index of this sha256.

        `whole`: and that index lies beside it, not its hash alone.
        """
        beside = self._beside()
        with suppress(OSError):
            return sha256_hex(read_regular(beside, largest=LARGEST_INDEX)) == newest
        with suppress(OSError):
            return not whole and os.readlink(beside) == newest[:_SHORT_LINK]  # noqa: PTH115 - it leads to no path
        return False

    def announce(self, content: bytes) -> None:
        """Write what shall be the index beside it; on a full disk its hash alone, if even that."""
        with suppress(OSError):
            self._write_beside(content)

    def put(self, content: bytes) -> None:
        """Replace the index, durably, by what was announced or else is written now.

        Raises:
            OSError: it is as it was.
        """
        # that of a writer that was killed stays what tells of it until it is the index
        if self._announced is not content and not self.is_late(sha256_hex(content), whole=True):
            self._write_beside(content)
        target = behind_links(self.path)
        self._beside().replace(target)
        self._announced = None
        sync_folder(target.parent)

    def forget(self, unwritten: str = "") -> None:
        """Take back what was announced; `unwritten` is the sha256 of an earlier one that still is to be written.

        A folder of that name is moved out of the way: without it nobody could tell a late index from an old copy.
        """
        self._announced = None
        beside = self._beside()
        with suppress(OSError):
            if beside.is_dir() and not beside.is_symlink():
                _log.warning("registry.moved_out_of_the_way", path=str(self._moved(beside, beside.parent)))
            else:
                beside.unlink()
        if unwritten:
            self._leave_hash(unwritten)

    def move_aside(self, folder: Path) -> Path:
        """Move what lies there into a folder, under a name of its own, and say which.

        Raises:
            OSError: it can't be moved: it is a mount point, say.
        """
        return self._moved(self.path, folder)

    def sweep(self, seconds: float) -> None:
        """Remove what writers that were killed left beside it: files of just our names, of before so many seconds."""
        oldest = time.time() - seconds
        with suppress(OSError):
            for name in filter(_LEFT.fullmatch, os.listdir(self.path.parent)):  # noqa: PTH208 - names are enough
                left = self.path.with_name(name)
                with suppress(OSError):
                    status = left.lstat()
                    if stat.S_ISREG(status.st_mode) and status.st_mtime < oldest:
                        left.unlink()

    def _write_beside(self, content: bytes) -> None:
        self.forget()  # one that another user's process left can't be written to
        try:
            write_aside(self._beside(), content, behind_links(self.path))
            self._announced = content
        except OSError:
            self._leave_hash(sha256_hex(content))
            raise

    def _leave_hash(self, digest: str) -> None:
        with suppress(OSError):
            self._beside().symlink_to(digest[:_SHORT_LINK])

    @staticmethod
    def _moved(path: Path, folder: Path) -> Path:
        aside = folder / f"{UNREAD_PREFIX}{utc_now():%Y%m%dT%H%M%S.%f}"
        path.rename(aside)
        return aside

    def _beside(self) -> Path:
        target = behind_links(self.path)
        return target.with_name(f".{target.name}.next")


def mark_of(path: Path) -> Mark:
    """A file's mark as it is now; never fails."""
    try:
        return _mark(os.stat(path))  # noqa: PTH116 - the hot poll; a Path would be built again each time
    except OSError:
        return NOWHERE


def _mark(status: os.stat_result) -> Mark:
    return Mark(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
