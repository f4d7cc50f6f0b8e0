"""Files that are followed: read again when they change, and a bad new one keeps the last good one.

A certificate and its key are replaced one after the other, so that between the two they don't fit together: that is
a bad one until the second is there.
"""

from __future__ import annotations

import errno
import stat
import threading
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from signalserve.access.errors import AccessSetupError

T = TypeVar("T")

_LARGEST = 16 * 1024 * 1024

_log = structlog.get_logger("access")


class Followed(Generic[T]):
    """A value read from files. Safe to share between threads; readers take no lock.

    `value` is the last good one, `problem` why the files don't give another, "" where they do.
    """

    def __init__(self, paths: Sequence[Path], read: Callable[[], T]) -> None:
        """Read for the first time.

        Raises:
            AccessSetupError: the files can't be used.
        """
        self._paths = tuple(paths)
        self._read = read
        self._lock = threading.Lock()
        self._signature = self._look()
        self.value = read()
        self.problem = ""

    def refresh(self) -> bool:
        """Read the files where they have changed; true where there is a new value. Blocks, and never raises."""
        with self._lock:
            signature = self._look()
            if signature == self._signature:
                return False
            self._signature = signature
            names = ", ".join(str(path) for path in self._paths)
            try:
                self.value = self._read()
            except AccessSetupError as error:
                self.problem = f"{error}; what was read before stays in force"
                _log.error("access.kept_last_good", files=names, why=str(error))
                return False
            self.problem = ""
            _log.info("access.reloaded", files=names)
            return True

    def _look(self) -> Hashable:
        return tuple(_signature(path) for path in self._paths)


def read_regular(path: Path) -> bytes:
    """A file's content; what is no file, such as a pipe that would never end, is not opened.

    Raises:
        OSError: it can't be read.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "is no file", str(path))
    if found.st_size > _LARGEST:
        raise OSError(errno.EFBIG, f"is larger than {_LARGEST:,} bytes", str(path))
    return path.read_bytes()


def _signature(path: Path) -> Hashable:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino
