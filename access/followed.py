"""Files that are followed: read again when they change, and a bad new one keeps the last good one.

A certificate and its key are replaced one after the other, so that between the two they don't fit together: that is
a bad one until the second is there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from signalserve.access.errors import AccessSetupError

T = TypeVar("T")

LARGEST = 16 * 1024 * 1024
"""Bytes of a token file or certificate; what is longer is another file."""
_SILENT_SECONDS = 10.0

_log = structlog.get_logger("access")


class Followed(Generic[T]):
    """A value read from files. Safe to share between threads; readers take no lock.

    `value` is the last good one. As long as the files don't give another they are read again at each look, since what
    kept them from it may have been the disk and no change of theirs.
    """

    def __init__(self, paths: Sequence[Path], read: Callable[[], T]) -> None:
        """Read for the first time.

        Raises:
            AccessSetupError: the files can't be used.
        """
        self._paths = tuple(paths)
        self._names = ", ".join(str(path) for path in self._paths)
        self._read = read
        self._looking = False
        self._lock = threading.Lock()
        self._signature = self._look()
        self.value = read()
        self._problem = ""
        self._looked = time.monotonic()

    @property
    def problem(self) -> str:
        """Why the files don't give another value; "" where they do."""
        silent = time.monotonic() - self._looked
        if silent > _SILENT_SECONDS and self._looking:
            return f"{self._names} could not be looked at for {silent:.0f} s; what was read before stays in force"
        return self._problem

    def follow(self, seconds: float, ended: threading.Event) -> None:
        """Look every so many seconds until `ended`, in a thread that nobody waits for.

        So a disk that hangs holds up neither a call nor the exit.
        """

        def look() -> None:
            while not ended.wait(seconds):
                self.refresh()

        threading.Thread(target=look, name="access", daemon=True).start()

    def refresh(self) -> bool:
        """Read the files where they have changed; true where there is a new value. Blocks, and never raises."""
        with self._lock:
            self._looking = True
            try:
                return self._refreshed()
            finally:
                self._looked, self._looking = time.monotonic(), False

    def _refreshed(self) -> bool:
        signature = self._look()
        if signature == self._signature:
            self._problem = ""
            return False
        try:
            value = self._read()
        except Exception as error:  # noqa: BLE001 - whatever a file holds, the next one must be read
            fact = error.fact if isinstance(error, AccessSetupError) else f"{self._names}: {error!r}"
            problem = f"{fact}; what was read before stays in force"
            if problem != self._problem:
                _log.error("access.kept_last_good", files=self._names, why=fact)
            self._problem = problem
            return False
        self.value, self._signature, self._problem = value, signature, ""
        _log.info("access.reloaded", files=self._names)
        return True

    def _look(self) -> Hashable:
        return tuple(_signature(path) for path in self._paths)


def _signature(path: Path) -> Hashable:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino
