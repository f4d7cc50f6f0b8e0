"""Proof that the event log is a whole chain, that nothing of it is gone, and that the index is what the log says."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from signalserve.common.files import open_regular, read_regular, sha256_hex
from signalserve.registry import checkpoint
from signalserve.registry.errors import LogCorruptError, StorageError
from signalserve.registry.events import LOG_FILE, SHORTEST_HEAD, Beginning, Event, EventLog, News, are_nuls
from signalserve.registry.folder_store import FolderStore
from signalserve.registry.index import INDEX_FILE
from signalserve.registry.lock import LOCK_FILE
from signalserve.registry.signing import check_signatures, public_keys
from signalserve.registry.store import View
from signalserve.registry.traces import ASIDE_PREFIX, MERGED_PREFIX, trace_of_a_log


@dataclass(frozen=True)
class LogReport:
    """`problems` break the proof; `notes` are what a crash may leave and the next writer mends.

    `head` is the hash of the newest event, empty for none: who notes it can prove later that nothing was cut off or
    rewritten. `signed` is how many events are signed with one of the keys that were asked for.
    """

    events: int
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    head: str = ""
    signed: int = 0

    @property
    def ok(self) -> bool:
        """Whether the chain is whole and the index is what it says."""
        return not self.problems


def verify_log(base_dir: Path | str, expect: str = "", keys: Iterable[Path] = ()) -> LogReport:
    """Read the whole log and the index, and compare them. Changes nothing.

    `expect` is a head's hash that was noted before, or its first eight characters or more: the log must hold it.
    `keys` are PEM files of public keys: from the first event on that is signed with one of them, each must be.

    Raises:
        InvalidArgumentError: a key can't be used.
    """
    public = public_keys(keys)
    base = Path(base_dir)
    log = _WholeLog(base / LOG_FILE)
    problems: list[str] = []
    notes: list[str] = []
    lines = b""
    if not log.path.exists() and not (base / INDEX_FILE).exists():
        problems.append(f"{base} holds no registry")
    else:
        try:
            if public and log.path.exists():
                lines = read_regular(log.path)
            view = FolderStore(base, log=log).view()
            if log.events:
                _compare_index(base, view, log, problems, notes)
                problems.extend(filter(None, [checkpoint.problem_of(base, log, log.events)]))
            else:
                _look_for_a_log(base, view, problems, notes)
        except LogCorruptError as error:
            return LogReport(0, (str(error),), ())
        except (StorageError, OSError) as error:
            problems.append(str(error))
    _compare_head(log.events, expect, problems, notes)
    found = check_signatures(log.events, lines, public)
    problems.extend(found.problems)
    notes.extend(found.notes)
    head = log.events[-1].hash if log.events else ""
    return LogReport(len(log.events), tuple(problems), tuple(notes), head, found.signed)


class _WholeLog(EventLog):
    """A log that is read from its start, and kept."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.events: list[Event] = []

    def read_new(self, known: Callable[[], Beginning | None] = lambda: None) -> News:
        news = super().read_new()
        self.events = [*(() if news.restarted else self.events), *news.events]
        return news

    def rest(self) -> bytes:
        """What stands behind the newest event: half a line, or what was written since."""
        with open_regular(self.path) as stream:
            stream.seek(self._offset)
            return stream.read()


def _compare_head(events: list[Event], expect: str, problems: list[str], notes: list[str]) -> None:
    if not expect:
        return
    if not events:
        problems.append(f"the log has gone: {expect} is expected in it")
        return
    found = next(
        (event for event in events if len(expect) >= SHORTEST_HEAD and event.hash.startswith(expect)), None
    )
    if found is None:
        problems.append(f"no event has the hash {expect}: the log was cut off, or rewritten")
    elif found is not events[-1]:
        notes.append(f"{expect} is revision {found.revision}; {len(events) - found.revision} more followed")


def _look_for_a_log(base: Path, view: View, problems: list[str], notes: list[str]) -> None:
    """Tell an index whose log has gone from one that never had any."""
    index, log = base / INDEX_FILE, base / LOG_FILE
    trace = ""
    if index.exists():
        left = f"{LOCK_FILE} was left by a change" if (base / LOCK_FILE).exists() else ""
        trace = trace_of_a_log(base, view.state.entries) or left
    if trace:
        problems.append(
            f"there is no event in the log, but {trace}: the log has gone or was emptied. Put it back; the runbook in "
            "docs/registry.md says what to do without one"
        )
    elif not log.exists():
        notes.append("no event log yet: a legacy index; the first change imports it")
    elif index.exists():
        notes.append("the log is empty beside an index; the next change imports the index")


def _compare_index(base: Path, view: View, log: _WholeLog, problems: list[str], notes: list[str]) -> None:
    rest, last = log.rest(), log.events[-1]
    later = b"\n" in rest and not are_nuls(rest)
    if later:
        notes.append("the log was written to meanwhile")
    elif _follows(rest, last):
        notes.append(
            "the last line is whole and lacks its line end: a writer was killed there, or an editor took it; `echo >> "
            f"{LOG_FILE}` keeps it, the next writer drops it"
        )
    elif rest:
        what = "NUL bytes, as a power cut leaves them," if are_nuls(rest) else "bytes"
        notes.append(f"a torn last line of {len(rest)} {what} was never committed; the next writer drops it")
    notes.extend(view.remarks)
    _name_copies(base, notes)
    if view.asked:
        problems.append(view.not_followed)
    elif view.edited_outside:
        problems.append(
            "the index is not what the log says: it was edited outside; the next change records the edit"
        )
    elif sha256_hex(view.state.render()) != last.index_sha256:
        problems.append(f"revision {last.revision}: the index that it names is not what the events give")
    elif not (base / INDEX_FILE).exists():
        notes.append("the index is missing; the next writer projects it again from the log")
    elif not later and sha256_hex(read_regular(base / INDEX_FILE)) != last.index_sha256:
        notes.append("the index is late, or spelt otherwise; the next writer projects it again")


def _follows(line: bytes, last: Event) -> bool:
    try:
        return Event.from_line(line).prev_hash == last.hash
    except (ValueError, RecursionError):
        return False


def _name_copies(base: Path, notes: list[str]) -> None:
    aside, merged = (
        sorted(path.name for path in base.glob(f"{prefix}*")) for prefix in (ASIDE_PREFIX, MERGED_PREFIX)
    )
    if aside:
        notes.append(
            f"kept aside and not followed: {', '.join(aside)}; `signalserve registry accept-index` shows what the "
            "newest would change, and takes it"
        )
    if merged:
        notes.append(f"old copies whose edits were taken, as they were: {', '.join(merged)}")
