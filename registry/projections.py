"""Which rows the index had at each revision: by that a file is told from a copy of an earlier one.

1. A row is known by its line as we write it, so that other quotes, line ends or another order make no difference.
2. Rows that nobody can read are rows too.
3. Each revision's rows are summed up in one number, which one changed row changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

from signalserve.registry.entry import ModelRegistryEntry
from signalserve.registry.events import Event
from signalserve.registry.index import Index
from signalserve.registry.state import RegistryState

# no model_id begins with a line break
_RAW = "\n"


class Base(NamedTuple):
    """The rows that the index had at a revision."""

    revision: int
    entries: Mapping[str, ModelRegistryEntry]
    raw_rows: frozenset[str]


class _Step(NamedTuple):
    revision: int
    name: str
    entry: ModelRegistryEntry | None
    line: str | None


class Projections:
    """Grows with the log; not for several threads at once."""

    def __init__(self) -> None:
        self._steps: list[_Step] = []
        self._now: dict[str, str] = {}
        self._sum = 0
        self._revision = 0
        self._newest: dict[int, int] = {0: 0}
        self.known: dict[str, ModelRegistryEntry] = {}

    def take(self, event: Event, after: RegistryState) -> None:
        """The next revision, by its event and the state after it."""
        revision = event.revision
        written = (row["model_id"] for row in event.detail.get("entries", ()))
        for model_id in dict.fromkeys((*written, *(change.model_id for change in event.changes))):
            self._put(revision, model_id, after.entries.get(model_id))
        if "raw_rows" in event.detail:
            texts = set(after.raw_rows)
            for name in [name for name in self._now if name.startswith(_RAW) and name[1:] not in texts]:
                self._put_line(revision, name, None, None)
            for text in texts:
                self._put_line(revision, _RAW + text, None, text)
        self._revision = revision
        self._newest[self._sum] = revision

    def revision_of(self, index: Index) -> int | None:
        """The newest revision that had just these rows; None where none had."""
        return self._newest.get(sum(map(_number, _lines(index).values())) % _MODULUS)

    def nearest(self, index: Index) -> Base:
        """The revision whose rows differ from an index in the fewest; of several the newest.

        A row of a model that came later than a revision speaks against it more than any other difference; one that had
        gone by then may have been put back.
        """
        lines = _lines(index)
        # no revision has just these rows (`revision_of`): none is nearer than one that differs in a single row
        if self._differs(lines) <= 1:
            return self._present()
        to_come = {step.name for step in self._steps}
        wrong = best = _NEVER * sum(name in to_come for name in lines)
        found = revision = 0
        now: dict[str, str | None] = {}
        for at, name, _, line in self._steps:
            if at != revision:
                if wrong <= best:
                    best, found = wrong, revision
                revision = at
            wanted = lines.get(name)
            if name in now:
                wrong -= now[name] != wanted
            elif wanted is not None:
                wrong -= _NEVER
            wrong += line != wanted
            now[name] = line
        return self._present() if wrong <= best else self._at(found)

    def _differs(self, lines: Mapping[str, str]) -> int:
        """In how many rows the newest revision differs from an index; new models are no difference."""
        ever = (
            {step.name for step in self._steps} if not lines.keys() <= self._now.keys() else self._now.keys()
        )
        return sum(self._now.get(name) != line and name in ever for name, line in lines.items()) + sum(
            name not in lines for name in self._now
        )

    def _present(self) -> Base:
        """The rows of the newest revision."""
        return Base(
            self._revision,
            {name: self.known[line] for name, line in self._now.items() if not name.startswith(_RAW)},
            frozenset(name[1:] for name in self._now if name.startswith(_RAW)),
        )

    def _at(self, revision: int) -> Base:
        entries: dict[str, ModelRegistryEntry] = {}
        raw: set[str] = set()
        for at, name, entry, line in self._steps:
            if at > revision:
                break
            if name.startswith(_RAW):
                (raw.discard if line is None else raw.add)(name[1:])
            elif entry is None:
                entries.pop(name, None)
            else:
                entries[name] = entry
        return Base(revision, entries, frozenset(raw))

    def _put(self, revision: int, model_id: str, entry: ModelRegistryEntry | None) -> None:
        line = None if entry is None else entry.line
        if entry is not None:
            self.known[entry.line] = entry
        self._put_line(revision, model_id, entry, line)

    def _put_line(self, revision: int, name: str, entry: ModelRegistryEntry | None, line: str | None) -> None:
        before = self._now.get(name)
        if before == line:
            return
        self._sum += (0 if line is None else _number(line)) - (0 if before is None else _number(before))
        self._sum %= _MODULUS
        if line is None:
            del self._now[name]
        else:
            self._now[name] = line
        self._steps.append(_Step(revision, name, entry, line))


_BYTES = 16
_MODULUS = 1 << 8 * _BYTES


# more than any index has rows
_NEVER = 1 << 32


def _number(line: str) -> int:
    content = line.encode("utf-8", errors="surrogateescape")
    return int.from_bytes(hashlib.blake2b(content, digest_size=_BYTES).digest(), "big")


def _lines(index: Index) -> dict[str, str]:
    lines = {model_id: entry.line for model_id, entry in index.entries.items()}
    return lines | {_RAW + text: text for text in index.raw_rows}
