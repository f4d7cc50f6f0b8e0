"""Proof that the event log is a whole chain, that nothing of it is gone, and that the index is what the log says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from signalserve.common.files import read_regular, sha256_hex
from signalserve.registry.errors import StorageError
from signalserve.registry.events import LOG_FILE, SHORTEST_HEAD, Event, EventLog
from signalserve.registry.folder_store import ASIDE_PREFIX, FolderStore
from signalserve.registry.index import INDEX_FILE


@dataclass(frozen=True)
class LogReport:
    """`problems` break the proof; `notes` are what a crash may leave and the next writer mends.

    `head` is the hash of the newest event, empty for none: who notes it can prove later that nothing was cut off or
    rewritten.
    """

    events: int
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    head: str = ""

    @property
    def ok(self) -> bool:
        """Whether the chain is whole and the index is what it says."""
        return not self.problems


def verify_log(base_dir: Path | str, expect: str = "") -> LogReport:
    """Read the whole log and the index, and compare them. Changes nothing.

    `expect` is a head's hash that was noted before, or its first eight characters or more: the log must hold it.
    """
    base = Path(base_dir)
    log_path, index_path = base / LOG_FILE, base / INDEX_FILE
    if not log_path.exists():
        lost = (f"the log has gone: {expect} is expected in it",) if expect else ()
        if index_path.exists():
            return LogReport(0, lost, ("no event log yet: a legacy index; the first change imports it",))
        return LogReport(0, (f"{base} holds no registry", *lost), ())
    try:
        events = EventLog(log_path).read_new().events
        content = read_regular(log_path)
    except (StorageError, OSError) as error:
        return LogReport(0, (str(error),), ())
    problems: list[str] = []
    notes: list[str] = []
    torn = len(content) - (content.rfind(b"\n") + 1)
    if torn:
        notes.append(f"a torn last line of {torn} bytes was never committed; the next writer drops it")
    _compare_head(events, expect, problems, notes)
    _compare_index(base, events, problems, notes)
    return LogReport(len(events), tuple(problems), tuple(notes), events[-1].hash if events else "")


def _compare_head(events: list[Event], expect: str, problems: list[str], notes: list[str]) -> None:
    if not expect:
        return
    found = next(
        (event for event in events if len(expect) >= SHORTEST_HEAD and event.hash.startswith(expect)), None
    )
    if found is None:
        problems.append(f"no event has the hash {expect}: the log was cut off, or rewritten")
    elif found is not events[-1]:
        notes.append(f"{expect} is revision {found.revision}; {len(events) - found.revision} more followed")


def _compare_index(base: Path, events: list[Event], problems: list[str], notes: list[str]) -> None:
    store = FolderStore(base)
    try:
        view = store.view()
    except StorageError as error:
        problems.append(str(error))
        return
    notes.extend(view.remarks)
    kept = sorted(path.name for path in base.glob(f"{ASIDE_PREFIX}*"))
    if kept:
        notes.append(
            f"kept aside and not followed: {', '.join(kept)}; `signalserve registry accept-index` takes the newest"
        )
    if view.asked:
        problems.append(
            f"the index is not followed: {view.asked}; `signalserve registry accept-index` takes it"
        )
        return
    index_path = base / INDEX_FILE
    if not events:
        if index_path.exists():
            notes.append("the log is empty beside an index; the next change imports the index")
        return
    if view.state.revision != len(events):
        notes.append("the log was written to meanwhile")
    elif view.edited_outside:
        problems.append(
            "the index is not what the log says: it was edited outside; the next change records the edit"
        )
    elif sha256_hex(view.state.render()) != events[-1].index_sha256:
        problems.append(
            f"revision {events[-1].revision}: the index that it names is not what the events give"
        )
    elif not index_path.exists():
        notes.append("the index is missing; the next writer projects it again from the log")
    elif sha256_hex(read_regular(index_path)) != events[-1].index_sha256:
        notes.append("the index is late, or spelt otherwise; the next writer projects it again")
