"""Where each model stood at each revision: by that an index is told from a copy of an earlier one.

1. What counts is which models an index has and in which status. Other cells, the spelling of numbers and dates, quotes,
   line ends and the order of the rows tell nothing: an editor or a program may have changed them in an old copy.
2. Each revision's standings are summed up in one number, which one changed status changes.
3. Nobody asks while the index is what the log says, so events are only noted, and summed up when somebody asks.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import NamedTuple

from signalserve.registry.entry import COLUMNS, ModelRegistryEntry, Status
from signalserve.registry.events import Event
from signalserve.registry.sections import read, written
from signalserve.registry.state import RegistryState


class Base(NamedTuple):
    """The rows that the index had at a revision."""

    revision: int
    entries: Mapping[str, ModelRegistryEntry]


class Nearest(NamedTuple):
    """The revision that explains an index best, and in how many standings of its rows the index differs from it.

    `seen` are the models by which the index changes what is in production now, in a status that they had at some
    revision that it may be a copy of. `tied`: another revision is as near, and explains some such row.
    """

    revision: int
    wrong: int = 0
    seen: frozenset[str] = frozenset()
    tied: bool = False


class _Step(NamedTuple):
    """A model's row, as the index has it, and its status since a revision; both None where it is gone.

    `before` is its status until then, and empty where it came.
    """

    revision: int
    name: str
    line: str | None
    status: str | None
    before: str | None


class _Taken(NamedTuple):
    revision: int
    rows: tuple[tuple[str, ModelRegistryEntry | None], ...]


class Projections:
    """Grows with the log; not for several threads at once."""

    def __init__(self, saved: Iterable[bytes] = ()) -> None:
        """`saved` is what `lines` gave at an earlier revision."""
        self._saved = tuple(saved)
        self._ahead: list[_Taken] = []
        self._steps: list[_Step] = []
        self._now: dict[str, _Step] = {}
        self._sum = 0
        self._revision = 0
        self._newest: dict[int, int] = {0: 0}

    def take(self, event: Event, after: RegistryState) -> None:
        """The next revision, by its event and the state after it."""
        written = (row["model_id"] for row in event.detail.get("entries", ()))
        names = dict.fromkeys((*written, *(change.model_id for change in event.changes)))
        self._ahead.append(_Taken(event.revision, tuple((name, after.entries.get(name)) for name in names)))

    def copy(self) -> Projections:
        """An independent copy."""
        other = Projections(self._saved)
        other._ahead = list(self._ahead)
        other._steps, other._now = list(self._steps), dict(self._now)
        other._sum, other._revision, other._newest = self._sum, self._revision, dict(self._newest)
        return other

    def revision_of(self, entries: Mapping[str, ModelRegistryEntry]) -> int | None:
        """The newest revision that had just these models in just these statuses; None where none had."""
        self._sum_up()
        return self._newest.get(
            sum(_number(name, entry.status) for name, entry in entries.items()) % _MODULUS
        )

    def nearest(self, entries: Mapping[str, ModelRegistryEntry], unsaid: Set[str] = frozenset()) -> Nearest:
        """The revision from which the rows of an index differ in the fewest standings.

        Rows that it has not may have been cut off: of several revisions that one counts of which the fewest are
        missing, then the newest. The newest one where nothing differs from it. None before a model came that the index
        has; one that had gone by a revision may have been put back. `unsaid` models have a row that says no status, so
        they tell nothing else.
        """
        self._sum_up()
        wanted = {name: entry.status for name, entry in entries.items()}
        now = {name: step.status for name, step in self._now.items() if step.status is not None}
        differing = [name for name, asked in wanted.items() if asked != now.get(name) and name not in unsaid]
        if not differing:
            return Nearest(self._revision)
        moves = {name for name in differing if Status.PRODUCTION in (wanted[name], now.get(name))}
        seen: set[str] = set()
        found, tied = self._revision, False
        wrong, unexplained = len(differing), len(moves)
        missing = sum(name not in wanted for name in now)
        best = wrong, missing
        for number in range(len(self._steps) - 1, -1, -1):
            revision, name, _, status, before = self._steps[number]
            asked = wanted.get(name)
            came = before == _NEVER
            if asked is None:
                missing += (not came and before is not None) - (status is not None)
            elif came:
                break
            elif name not in unsaid:
                turned = (before != asked) - (status != asked)
                wrong += turned
                if name in moves:
                    unexplained += turned
                    if before == asked:
                        seen.add(name)
            earlier = self._steps[number - 1].revision if number else 0
            if earlier != revision and wrong <= best[0]:
                tied = (tied and wrong == best[0]) or unexplained < len(moves)
                if (wrong, missing) < best:
                    best, found = (wrong, missing), earlier
        return Nearest(found, best[0], frozenset(seen), tied)

    def at(self, revision: int) -> Base:
        """The rows of a revision."""
        self._sum_up()
        lines: dict[str, str] = {}
        for at, name, line, *_ in self._steps:
            if at > revision:
                break
            if line is None:
                lines.pop(name, None)
            else:
                lines[name] = line
        return Base(revision, {entry.model_id: entry for entry in _entries(lines.values())})

    def lines(self) -> Iterator[bytes]:
        """What to keep, so that it need not be summed up again: JSON lines."""
        self._sum_up()
        sums = ([f"{summed:x}", revision] for summed, revision in self._newest.items())
        return written([("steps", self._steps), ("sums", sums), ("now", [f"{self._sum:x}", self._revision])])

    def _sum_up(self) -> None:
        saved, self._saved = self._saved, ()
        if saved:
            known = read(saved)
            self._steps = [_Step(*step) for step in known.get("steps", ())]
            self._now = {step.name: step for step in self._steps}
            self._newest = {int(summed, 16): revision for summed, revision in known["sums"]}
            summed, self._revision = known["now"]
            self._sum = int(summed, 16)
        ahead, self._ahead = self._ahead, []
        for revision, rows in ahead:
            for name, entry in rows:
                self._put(revision, name, entry)
            self._newest[self._sum] = self._revision = revision

    def _put(self, revision: int, name: str, entry: ModelRegistryEntry | None) -> None:
        before = self._now.get(name)
        line = None if entry is None else entry.line
        if line == (None if before is None else before.line):
            return
        status = None if entry is None else str(entry.status)
        step = _Step(revision, name, line, status, _NEVER if before is None else before.status)
        for counted, sign in ((before, -1), (step, 1)):
            if counted is not None and counted.status is not None:
                self._sum += sign * _number(name, counted.status)
        self._sum %= _MODULUS
        self._now[name] = step
        self._steps.append(step)


_BYTES = 16
_MODULUS = 1 << 8 * _BYTES


_NEVER = ""


def _number(name: str, status: str) -> int:
    content = f"{name}\n{status}".encode("utf-8", errors="surrogateescape")
    return int.from_bytes(hashlib.blake2b(content, digest_size=_BYTES).digest(), "big")


def _entries(lines: Iterable[str]) -> Iterator[ModelRegistryEntry]:
    for cells in csv.reader(io.StringIO("".join(lines), newline="")):
        yield ModelRegistryEntry.from_row(dict(zip(COLUMNS, cells, strict=True)))
