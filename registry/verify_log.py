"""Proof that the event log is a whole chain and that the index is what the log says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from signalserve.common.files import file_sha256, read_regular, sha256_hex
from signalserve.registry.errors import StorageError
from signalserve.registry.events import LOG_FILE, EventLog
from signalserve.registry.index import INDEX_FILE
from signalserve.registry.state import RegistryState


@dataclass(frozen=True)
class LogReport:
    """`problems` break the proof; `notes` are what a crash may leave and the next writer mends."""

    events: int
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether the chain is whole and the index is what it says."""
        return not self.problems


def verify_log(base_dir: Path | str) -> LogReport:
    """Read the whole log and the index, and compare them. Changes nothing."""
    base = Path(base_dir)
    log_path, index_path = base / LOG_FILE, base / INDEX_FILE
    if not log_path.exists():
        if index_path.exists():
            return LogReport(0, (), ("no event log yet: a legacy index; the first change imports it",))
        return LogReport(0, (f"{base} holds no registry",), ())
    state = RegistryState()
    hashes: list[str] = []
    try:
        _, events = EventLog(log_path).read_new()
    except StorageError as error:
        return LogReport(0, (str(error),), ())
    for event in events:
        state.apply(event)
        hashes.append(event.index_sha256)
    notes: list[str] = []
    problems: list[str] = []
    content = read_regular(log_path)
    torn = len(content) - (content.rfind(b"\n") + 1)
    if torn:
        notes.append(f"a torn last line of {torn} bytes was never committed; the next writer drops it")
    if events and sha256_hex(state.render()) != hashes[-1]:
        problems.append(
            f"revision {events[-1].revision}: the index that it names is not what the events give"
        )
    if not events:
        if index_path.exists():
            notes.append("the log is empty beside an index; the next change imports the index")
    elif not index_path.exists():
        notes.append("the index is missing; the next writer projects it again from the log")
    elif (found := _index_sha256(index_path, problems)) in (hashes[-1], ""):
        pass
    elif len(hashes) > 1 and found == hashes[-2]:
        notes.append("the index is one revision late; the next writer projects it again")
    else:
        problems.append(
            "the index is not what the log says: it was edited outside; the next change records the edit"
        )
    return LogReport(len(events), tuple(problems), tuple(notes))


def _index_sha256(path: Path, problems: list[str]) -> str:
    """The index's digest; empty, with a problem, where it can't be read."""
    try:
        return file_sha256(path)
    except OSError as error:
        problems.append(f"{path}: {error.strerror or error}")
        return ""
