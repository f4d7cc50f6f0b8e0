"""The registry folder's lock: who holds it writes, and it goes with its process."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

from signalserve.registry.errors import RegistryBusyError, StorageError

LOCK_FILE = ".registry.lock"


def take_lock(base_dir: Path, seconds: float) -> FileLock:
    """The lock of a folder, held; the caller releases it.

    Raises:
        RegistryBusyError: another writer holds it for longer than so many seconds.
        StorageError: it can't be taken.
    """
    lock = FileLock(base_dir / LOCK_FILE, timeout=seconds, is_singleton=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise RegistryBusyError(
            f"{lock.lock_file}: another writer has held the lock for {seconds:.0f} s"
        ) from error
    except OSError as error:
        raise StorageError(f"the lock {lock.lock_file}: {error.strerror or error}") from error
    return lock
