"""Reading files that others write, delete and damage meanwhile: an answer or a reason, never an exception.

What is kept is kept by a file's signature (inode, size, time), so a process that has it answers as one that has not.
"""

from __future__ import annotations

import csv
import io
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from signalserve.common.files import read_regular

V = TypeVar("V")

Signature = tuple[int, int, int]
_NOTHING: Signature = (0, 0, 0)
_DEEPEST = 60
LONGEST_FILE = 256 * 1024 * 1024


@dataclass(frozen=True)
class Found(Generic[V]):
    """What a file holds; `value` is None where `problem` says why."""

    value: V | None
    problem: str = ""


def signature(path: Path) -> Signature:
    """Inode, size and time of a file; zeros for one that is not there."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return _NOTHING
    return (status.st_ino, status.st_size, status.st_mtime_ns)


def listed(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder that are not hidden, by name; none where it is not there or can't be read."""
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError:
        return []
    return sorted(found, key=lambda entry: entry.name)


def read_bytes(path: Path) -> Found[bytes]:
    """A file's bytes."""
    try:
        return Found(read_regular(path, largest=LONGEST_FILE))
    except FileNotFoundError:
        return Found(None, f"{path.name} is missing")
    except (OSError, ValueError) as error:
        return Found(None, f"{path.name} can't be read: {getattr(error, 'strerror', None) or error}")


def read_object(path: Path) -> Found[dict[str, Any]]:
    """A JSON object."""
    content = read_bytes(path)
    if content.value is None:
        return Found(None, content.problem)
    try:
        value = json.loads(content.value)
    except (ValueError, RecursionError) as error:
        return Found(None, f"{path.name} is not JSON: {error}")
    if _is_deep(value):
        return Found(None, f"{path.name} is nested deeper than anything that is shown")
    if not isinstance(value, dict):
        return Found(None, f"{path.name} is no JSON object")
    return Found(value)


def _is_deep(value: Any) -> bool:
    """Whether values lie in values more than `_DEEPEST` times; without recursion, which is what deep ones exhaust."""
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            item
            for outer in level
            if isinstance(outer, dict | list)
            for item in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True


def read_rows(path: Path) -> Found[list[dict[str, str]]]:
    """The rows of a CSV file with a header; what is not UTF-8 is replaced."""
    content = read_bytes(path)
    if content.value is None:
        return Found(None, content.problem)
    text = io.StringIO(content.value.decode("utf-8-sig", "replace"), newline="")
    try:
        rows = [
            {str(name): str(cell or "") for name, cell in row.items() if name is not None}
            for row in csv.DictReader(text)
        ]
    except csv.Error as error:
        return Found(None, f"{path.name} is no CSV file: {error}")
    return Found(rows)


class Kept(Generic[V]):
    """The last `size` values that were made, each by what it was made from. Safe to share between threads."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[Hashable, V] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, made_from: Hashable, make: Callable[[], V]) -> V:
        """The value of this origin; made, outside the lock, where there is none yet."""
        with self._lock:
            if made_from in self._values:
                self._values.move_to_end(made_from)
                return self._values[made_from]
        value = make()
        with self._lock:
            self._values[made_from] = value
            while len(self._values) > self._size:
                self._values.popitem(last=False)
        return value
