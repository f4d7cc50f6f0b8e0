"""The lines of a large index, and what they hash to after each of many changes."""

from __future__ import annotations

import hashlib

from signalserve.registry.entry import COLUMNS, csv_line

_LINES_A_HASHER = 128


class IndexLines:
    """The index's lines, and their sha256 at the cost of what is behind the first line that changed."""

    def __init__(self) -> None:
        """An index without a row."""
        self._lines = [csv_line(COLUMNS).encode()]
        # the hash of all lines before each multiple of _LINES_A_HASHER
        self._hashers = [hashlib.sha256()]

    def put(self, place: int, line: str) -> None:
        """Write the line of a row, counted from 0; the one behind the last is new."""
        self._lines[place + 1 : place + 2] = [line.encode()]
        self._changed(place + 1)

    def drop_first(self) -> None:
        """Take the first row away."""
        del self._lines[1]
        self._changed(1)

    def sha256(self) -> str:
        """Of the whole file."""
        while (done := (len(self._hashers) - 1) * _LINES_A_HASHER) + _LINES_A_HASHER <= len(self._lines):
            hasher = self._hashers[-1].copy()
            hasher.update(b"".join(self._lines[done : done + _LINES_A_HASHER]))
            self._hashers.append(hasher)
        rest = self._hashers[-1].copy()
        rest.update(b"".join(self._lines[done:]))
        return rest.hexdigest()

    def content(self) -> bytes:
        """The file."""
        return b"".join(self._lines)

    def _changed(self, line: int) -> None:
        del self._hashers[line // _LINES_A_HASHER + 1 :]
