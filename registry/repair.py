"""A log that is no whole chain any more: what can be proven is kept, what not is listed, and the old log is kept aside.

1. Proven is the chain from its beginning to the line that breaks it.
2. The lines behind that one are proven too where they chain up to a head that somebody noted (`expect`): each covers
   the hash of the one before. What the broken line said is lost all the same.
3. The index stays as it lies. One event takes what it says that the kept events do not, as a decision of who repairs;
   so no model goes out of production. Of lines that are proven it takes the digests of models too; any other model that
   was registered behind the break must be adopted again before a server opens it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from signalserve.common.files import behind_links, read_regular, sha256_hex, write_atomically
from signalserve.registry.errors import RegistryMissingError, StorageError
from signalserve.registry.events import GENESIS, LOG_FILE, SHORTEST_HEAD, Event
from signalserve.registry.folder_store import FolderStore
from signalserve.registry.index import INDEX_FILE, LARGEST_INDEX, parse_index
from signalserve.registry.index_file import IndexFile
from signalserve.registry.lock import take_lock
from signalserve.registry.store import LOCK_SECONDS, Origin

# a log that was broken, beside the one that is not
LOG_ASIDE_PREFIX = "registry_events.aside-"


@dataclass(frozen=True)
class Unproven:
    """A line that is not kept: its number from 1, what it says of itself, and why it proves nothing."""

    line: int
    says: str
    why: str


@dataclass(frozen=True)
class Repair:
    """What a repair keeps and what not; `aside` is the old log's new place, None where nothing was done.

    `adopt` are models without a digest since; `anchored`: the lines behind the break are proven by a noted head.
    """

    kept: int
    unproven: tuple[Unproven, ...] = ()
    anchored: bool = False
    aside: Path | None = None
    adopt: tuple[str, ...] = ()

    @property
    def needed(self) -> bool:
        """Whether there is anything to repair."""
        return bool(self.unproven)


def plan_repair(base_dir: Path | str, expect: str = "") -> Repair:
    """What a repair would do. Changes nothing.

    Raises:
        RegistryMissingError: there is no log.
        StorageError: it can't be read.
    """
    return _plan(_read_log(Path(base_dir) / LOG_FILE), expect)[0]


def repair_log(
    base_dir: Path | str, expect: str = "", *, reason: str = "", actor: str = "", via: str = "python"
) -> Repair:
    """Keep what is proven, under the registry's lock; does nothing to a log that is whole.

    Raises:
        RegistryMissingError: there is no log.
        RegistryBusyError: another writer has its turn.
        StorageError: it can't be read or written, or there is no index to take.
    """
    base = Path(base_dir)
    _read_log(base / LOG_FILE)  # where there is none, no lock is left
    lock = take_lock(base, LOCK_SECONDS)
    try:
        content = _read_log(base / LOG_FILE)
        plan, rest = _plan(content, expect)
        if not plan.needed:
            return plan
        index = _usable_index(base / INDEX_FILE)
        aside = base / f"{LOG_ASIDE_PREFIX}{sha256_hex(content)[:12]}.jsonl"
        write_atomically(aside, content)
        # made whole beside it, so that nobody ever sees the beginning alone
        with TemporaryDirectory(dir=base, prefix=".repair-") as name:
            made = FolderStore(name, models_dir=base)
            made.log_path.write_bytes(b"".join(content.splitlines(keepends=True)[: plan.kept]))
            made.accept(
                index,
                Origin(actor, via, reason=reason or "the log was broken"),
                repaired={"kept": plan.kept, "unproven": len(plan.unproven), "aside": aside.name},
                digests=_digests(rest) if plan.anchored else {},
            )
            log, projected = made.log_path.read_bytes(), made.index_path.read_bytes()
        index_file = IndexFile(base / INDEX_FILE)
        index_file.announce(projected)
        write_atomically(behind_links(base / LOG_FILE), log)
        index_file.put(projected)
    except OSError as error:
        raise StorageError(f"{base}: {error.strerror or error}") from error
    finally:
        lock.release()
    state = FolderStore(base).view().state
    adopt = tuple(
        entry.model_id
        for entry in state.entries.values()
        if entry.status != "failed" and not state.digests.get(entry.model_id)
    )
    return replace(plan, aside=aside, adopt=adopt)


def _usable_index(path: Path) -> bytes:
    try:
        content = read_regular(path, largest=LARGEST_INDEX)
    except OSError as error:
        raise StorageError(
            f"{path}: {error.strerror or error}: without it nobody knows what was in production; put it back first"
        ) from error
    if not parse_index(content).entries:
        raise StorageError(
            f"{path}: no row of it can be read: without it nobody knows what was in production; put it back first"
        )
    return content


def _read_log(path: Path) -> bytes:
    try:
        return read_regular(path)
    except FileNotFoundError as error:
        raise RegistryMissingError(f"{path}: there is no log to repair") from error
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from error


def _plan(content: bytes, expect: str) -> tuple[Repair, list[Event]]:
    """What is kept and what not, and the events behind the break that are proven by the head."""
    lines = content.splitlines(keepends=True)
    kept: list[Event] = []
    for number, line in enumerate(lines, 1):
        event, why = _read(line)
        if event is not None and not _follows(event, kept):
            why = f"it does not follow revision {len(kept)}"
        if why or event is None:
            if number == len(lines) and not line.endswith(b"\n"):
                break  # it was never committed, and the next writer drops it
            return _broken(lines, number, why, expect)
        kept.append(event)
    return Repair(len(kept)), []


def _broken(lines: Sequence[bytes], number: int, why: str, expect: str) -> tuple[Repair, list[Event]]:
    tail = [_read(line)[0] for line in lines[number:] if line.endswith(b"\n")]
    whole = [event for event in tail if event is not None]
    chained = len(whole) == len(tail) and all(
        after.prev_hash == before.hash for before, after in pairwise(whole)
    )
    anchored = bool(whole) and chained and len(expect) >= SHORTEST_HEAD and whole[-1].hash.startswith(expect)
    reason = "it is proven by the head that was noted" if anchored else "it is behind the break"
    unproven = [Unproven(number, _says(lines[number - 1]), why)]
    unproven += [Unproven(at, _says(line), reason) for at, line in enumerate(lines[number:], number + 1)]
    return Repair(number - 1, tuple(unproven), anchored), whole if anchored else []


def _read(line: bytes) -> tuple[Event | None, str]:
    try:
        return Event.from_line(line), ""
    except (ValueError, RecursionError) as error:
        return None, f"it {error}"


def _follows(event: Event, kept: Sequence[Event]) -> bool:
    return event.revision == len(kept) + 1 and event.prev_hash == (kept[-1].hash if kept else GENESIS)


def _says(line: bytes) -> str:
    """An event's action and models as a line has them, if it can be read at all."""
    try:
        values = json.loads(line)
        moved = ", ".join(
            f"{change['model_id']}: {change['from']} -> {change['to']}" for change in values["transitions"]
        )
        return f"revision {values['revision']}, {values['action']} {moved}".strip()
    except (ValueError, KeyError, TypeError, RecursionError):
        return "nothing that can be read"


def _digests(events: Sequence[Event]) -> dict[str, str]:
    return {change.model_id: change.digest for event in events for change in event.changes if change.digest}
