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


def file_sha256(path: Path, *, largest: int | None = None) -> str:
    """Lower-case hex sha256 of a file, read in parts.

    Raises:
        OSError: as for `read_regular`.
    """
    digest = hashlib.sha256()
    with open_regular(path) as stream:
        _size_of(stream, path, largest)
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
        OSError: it can't be read, is no file, or has more than `largest` bytes; of such a one nothing is read.
    """
    with open_regular(path) as stream:
        return read_opened(stream, path, largest=largest)


def read_opened(stream: BinaryIO, path: Path, *, largest: int | None = None) -> bytes:
    """What `read_regular` reads, of a file that `open_regular` has opened.

    Raises:
        OSError: it can't be read, or has more than `largest` bytes; of such a one nothing is read.
    """
    size = _size_of(stream, path, largest)
    if largest is None:
        return stream.read()
    content = stream.read(size + 1)  # memory is taken for so many, which may be far fewer than the most
    if len(content) > size:  # it grows
        content += stream.read(largest + 1 - len(content))
    if len(content) > largest:
        raise _too_large(path, len(content), largest)
    return content


def _size_of(stream: BinaryIO, path: Path, largest: int | None) -> int:
    size = os.fstat(stream.fileno()).st_size
    if largest is not None and size > largest:
        raise _too_large(path, size, largest)
    return size


def _too_large(path: Path, size: int, largest: int) -> OSError:
    return OSError(errno.EFBIG, f"it has {size:,} bytes, over the limit of {largest:,}", str(path))


def is_folder(path: Path) -> bool:
    """Whether there is a folder; false also for a name that is too long to be one, as a row of an index may say.

    Raises:
        OSError: it can't be told, as the disk fails.
    """
    try:
        return path.is_dir()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return False


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable, or what was written to a file."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(target: Path, content: bytes, *, durable: bool = True, private: bool = False) -> None:
    """Replace a file's content: write aside, fsync, rename, fsync the folder.

    A file that was there keeps its mode, and its group where that is permitted; a link is replaced, and not what it
    leads to (`behind_links`), which may be another's. `durable` false leaves the fsyncs out: a reader never sees half a
    file, but a power cut may take the new one. `private`: a new file is its owner's alone to read; one that was there
    keeps its owner too.
    The name aside is the process's own, so that two writers at worst take turns.

    Raises:
        OSError: nothing was replaced, and nothing is left aside.
    """
    aside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    write_aside(aside, content, target, durable=durable, private=private)
    try:
        aside.replace(target)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(target.parent)


def write_aside(
    aside: Path, content: bytes, target: Path, *, durable: bool = True, private: bool = False
) -> None:
    """Write what shall take a target's place, with the target's mode and group; `write_atomically` says the rest.

    Raises:
        OSError: nothing is left aside.
    """
    try:
        with open(aside, "wb", opener=_opened_private if private else None) as stream:
            _take_mode(stream.fileno(), target, private=private)
            stream.write(content)
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def behind_links(path: Path) -> Path:
    """Where a name leads to that is a link; any other name as it is. Never fails."""
    return (
        Path(os.path.realpath(path)) if path.is_symlink() else path
    )  # `resolve` fails where it leads in a circle


def _opened_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _take_mode(descriptor: int, target: Path, *, private: bool) -> None:
    try:
        known = target.stat()
    except OSError:
        known = None
    if known is None or not stat.S_ISREG(known.st_mode):
        if private:
            os.fchmod(descriptor, 0o600)  # what an earlier process left aside may be readable by all
        return
    if private:
        os.fchmod(descriptor, stat.S_IMODE(known.st_mode))
    with suppress(
        OSError
    ):  # only root gives a file away, others only to a group of theirs; some disks know no modes
        os.fchown(descriptor, known.st_uid if private else -1, known.st_gid)
    with suppress(OSError):
        os.fchmod(descriptor, stat.S_IMODE(known.st_mode))


def sync_tree(folder: Path) -> None:
    """Make a folder durable: its files, those of its folders, and its name; whoever wrote them.

    What this process may not open, or what goes meanwhile, is left out: it is nothing that anybody relies on.

    Raises:
        OSError: the disk has not taken all of it.
    """
    there = folder.resolve()
    below = [path for path in sorted(there.rglob("*")) if path.is_file() or path.is_dir()]
    for path in dict.fromkeys([*reversed(below), there, there.parent, folder.parent]):
        with suppress(PermissionError, FileNotFoundError):
            sync_folder(path)
