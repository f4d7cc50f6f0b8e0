"""Writing so that a crash leaves the old file or the new one, never half of either; and files' digests."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

_CHUNK = 1 << 20


def sha256_hex(content: bytes) -> str:
    """Lower-case hex sha256."""
    return hashlib.sha256(content).hexdigest()


def file_sha256(path: Path) -> str:
    """Lower-case hex sha256 of a file, read in parts."""
    digest = hashlib.sha256()
    with open_regular(path) as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def open_regular(path: Path) -> BinaryIO:
    """A file to read; what is no file, such as a pipe that would never end, is refused and not waited for.

    Raises:
        OSError: it can't be opened, or is no file.
    """
    stream = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")
    if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        return stream
    stream.close()
    raise OSError(errno.EINVAL, "it is no file", str(path))


def read_regular(path: Path, *, largest: int | None = None) -> bytes:
    """A file's content, as `open_regular` opens it.

    Raises:
        OSError: it can't be read, is no file, or has more than `largest` bytes.
    """
    with open_regular(path) as stream:
        content = stream.read(-1 if largest is None else largest + 1)
    if largest is not None and len(content) > largest:
        raise OSError(errno.EFBIG, f"it is larger than {largest:,} bytes", str(path))
    return content


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(target: Path, content: bytes, *, durable: bool = True, private: bool = False) -> None:
    """Replace a file's content: write aside, fsync, rename, fsync the folder.

    `durable` false leaves the fsyncs out: a reader never sees half a file, but a power cut may take the new one.
    `private`: a new file is its owner's alone to read; one that was there keeps its owner and mode.
    The name aside is the process's own, so that two writers at worst take turns.

    Raises:
        OSError: nothing was replaced, and nothing is left aside.
    """
    aside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with open(aside, "wb", opener=_opened_private if private else None) as stream:
            if private:
                _take_owner_and_mode(stream.fileno(), target)
            stream.write(content)
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        aside.replace(target)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(target.parent)


def _opened_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _take_owner_and_mode(descriptor: int, target: Path) -> None:
    try:
        known = target.stat()
    except OSError:
        os.fchmod(descriptor, 0o600)  # what an earlier process left aside may be readable by all
        return
    os.fchmod(descriptor, stat.S_IMODE(known.st_mode))
    with suppress(OSError):  # only root gives a file away
        os.fchown(descriptor, known.st_uid, known.st_gid)


def sync_tree(folder: Path) -> None:
    """Make a folder's files durable before the folder gets its final name."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    sync_folder(folder)
