"""Where each model stood at each revision: by that an index is told from a copy of an earlier one.

1. What counts is which models an index has and in which status. Other cells, the spelling of numbers and dates, quotes,
   line ends and the order of the rows tell nothing: an editor or a program may have changed them in an old copy.
2. Each revision's standings are summed up in one number, which one changed status changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

from signalserve.registry.entry import ModelRegistryEntry
from signalserve.registry.events import Event
from signalserve.registry.state import RegistryState


class Base(NamedTuple):
    """The rows that the index had at a revision."""

    revision: int
    entries: Mapping[str, ModelRegistryEntry]


class _Step(NamedTuple):
    revision: int
    name: str
    entry: ModelRegistryEntry | None
    status: str | None


class Projections:
    """Grows with the log; not for several threads at once."""

    def __init__(self) -> None:
        self._steps: list[_Step] = []
        self._now: dict[str, ModelRegistryEntry] = {}
        self._sum = 0
        self._revision = 0
        self._newest: dict[int, int] = {0: 0}
        self.known: dict[str, ModelRegistryEntry] = {}

    def take(self, event: Event, after: RegistryState) -> None:
        """The next revision, by its event and the state after it."""
        written = (row["model_id"] for row in event.detail.get("entries", ()))
        for model_id in dict.fromkeys((*written, *(change.model_id for change in event.changes))):
            self._put(event.revision, model_id, after.entries.get(model_id))
        self._revision = event.revision
        self._newest[self._sum] = event.revision

    def revision_of(self, entries: Mapping[str, ModelRegistryEntry]) -> int | None:
        """The newest revision that had just these models in just these statuses; None where none had."""
        return self._newest.get(
            sum(_number(name, entry.status) for name, entry in entries.items()) % _MODULUS
        )

    @property
    def present(self) -> Base:
        """The rows of the newest revision."""
        return Base(self._revision, dict(self._now))

    def nearest(self, entries: Mapping[str, ModelRegistryEntry]) -> Base:
        """The revision that differs from an index in the fewest standings; of several the newest.

        A model that came later than a revision speaks against it more than any other difference; one that had gone by
        then may have been put back.
        """
        wanted = {name: entry.status for name, entry in entries.items()}
        to_come = {step.name for step in self._steps}
        wrong = best = _NEVER * sum(name in to_come for name in wanted)
        found = revision = 0
        now: dict[str, str | None] = {}
        for at, name, _, status in self._steps:
            if at != revision:
                if wrong <= best:
                    best, found = wrong, revision
                revision = at
            asked = wanted.get(name)
            if name in now:
                wrong -= now[name] != asked
            elif asked is not None:
                wrong -= _NEVER
            wrong += status != asked
            now[name] = status
        return self.present if wrong <= best else self.at(found)

    def at(self, revision: int) -> Base:
        """The rows of a revision."""
        entries: dict[str, ModelRegistryEntry] = {}
        for at, name, entry, _ in self._steps:
            if at > revision:
                break
            if entry is None:
                entries.pop(name, None)
            else:
                entries[name] = entry
        return Base(revision, entries)

    def _put(self, revision: int, name: str, entry: ModelRegistryEntry | None) -> None:
        before = self._now.get(name)
        if before is not None and entry is not None and before.line == entry.line:
            return
        if before is None and entry is None:
            return
        if before is not None:
            self._sum -= _number(name, before.status)
        if entry is None:
            del self._now[name]
        else:
            self._sum += _number(name, entry.status)
            self._now[name] = entry
            self.known[entry.line] = entry
        self._sum %= _MODULUS
        self._steps.append(_Step(revision, name, entry, None if entry is None else str(entry.status)))


_BYTES = 16
_MODULUS = 1 << 8 * _BYTES


# more than any index has rows
_NEVER = 1 << 32


def _number(name: str, status: str) -> int:
    content = f"{name}\n{status}".encode("utf-8", errors="surrogateescape")
    return int.from_bytes(hashlib.blake2b(content, digest_size=_BYTES).digest(), "big")
