"""A log that is no whole chain any more: what can be proven is kept, what not is listed, and the old log is kept aside.

1. Proven is the chain from its beginning to the line that breaks it.
2. The lines behind that one are proven too, up to a head that somebody noted (`expect`): each covers the hash of the
   one before. What the broken line said is lost all the same, so they can't stay as they are: what they say of digests,
   evidence, looks at bars and quarantines is said again, by who repairs and with each line's hash. A quarantine that
   they lifted and evidence that they ended stays so.
3. The index stays as it lies. The last event takes what it says that the events before do not, as a decision of who
   repairs; so no model goes out of production. A model that a line registered which is neither kept nor proven must be
   adopted again before a server opens it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from signalserve.common.files import behind_links, read_regular, sha256_hex, write_atomically
from signalserve.registry.entry import Status
from signalserve.registry.errors import RegistryMissingError, StorageError
from signalserve.registry.events import GENESIS, LOG_FILE, SHORTEST_HEAD, Action, Event, are_nuls
from signalserve.registry.folder_store import FolderStore
from signalserve.registry.index import INDEX_FILE, LARGEST_INDEX, parse_index
from signalserve.registry.index_file import IndexFile
from signalserve.registry.lock import take_lock
from signalserve.registry.signing import Signer
from signalserve.registry.state import RegistryState
from signalserve.registry.store import LOCK_SECONDS, Draft, Origin
from signalserve.registry.traces import LOG_ASIDE_PREFIX


@dataclass(frozen=True)
class Line:
    """A line from the break on: its number from 1, what it says of itself, and why it is not kept, if it is not."""

    number: int
    says: str
    why: str = ""


@dataclass(frozen=True)
class Repair:
    """What a repair keeps and what not; `aside` is the old log's new place, None where nothing was done.

    `kept` is how many events stay as they are, `proven` are those behind the break that a noted head proves, `unproven`
    all others; `anchored`: there is such a head in the log. `adopt` are models without a digest since,
    `head` is the mended log's.
    """

    kept: int
    unproven: tuple[Line, ...] = ()
    proven: tuple[Line, ...] = ()
    anchored: bool = False
    aside: Path | None = None
    adopt: tuple[str, ...] = ()
    head: str = ""

    @property
    def needed(self) -> bool:
        """Whether there is anything to repair."""
        return bool(self.unproven)


def plan_repair(base_dir: Path | str, expect: str = "") -> Repair:
    """What a repair would do. Changes nothing.

    Raises:
        RegistryMissingError: there is no log.
        StorageError: it can't be read, or was emptied, of which nothing can be kept.
    """
    plan = _plan(_read_log(Path(base_dir) / LOG_FILE), expect)[0]
    if not plan.kept and not plan.needed:
        FolderStore(base_dir).view()  # which tells an emptied log
    return plan


def repair_log(
    base_dir: Path | str,
    expect: str = "",
    *,
    reason: str = "",
    actor: str = "",
    via: str = "python",
    signer: Signer | None = None,
) -> Repair:
    """Keep what is proven, under the registry's lock; does nothing to a log that is whole. `signer` signs its events.

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
        plan, proven = _plan(content, expect)
        if not plan.needed:
            return plan
        index = _usable_index(base / INDEX_FILE)
        aside = base / f"{LOG_ASIDE_PREFIX}{sha256_hex(content)[:12]}.jsonl"
        write_atomically(aside, content)
        # made whole beside it, so that nobody ever sees the beginning alone
        with TemporaryDirectory(dir=base, prefix=".repair-") as name:
            made = FolderStore(name, models_dir=base)
            made.signer = signer
            before_the_break = content.splitlines(keepends=True)[: plan.unproven[0].number - 1]
            made.log_path.write_bytes(b"".join(line for line in before_the_break if line.strip()))
            origin = Origin(actor, via, reason=reason or "the log was broken")
            stands = _standing(made.view().state, proven)
            with made.transaction(origin) as turn:
                for draft in filter(None, map(_said_again, proven)):
                    turn.commit(draft)
            about = {
                "kept": plan.kept,
                "proven": len(plan.proven),
                "unproven": len(plan.unproven),
                "aside": aside.name,
            }
            event = made.accept(
                index,
                origin,
                repaired={"repaired": about, **stands},
                digests=_digests(proven),
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
    return replace(plan, aside=aside, adopt=adopt, head=event.hash if event else "")


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
        if not line.strip():
            continue  # an editor may have left it
        event, why = _read(line)
        if event is not None and not _follows(event, kept):
            why = f"it does not follow revision {len(kept)}"
        if why or event is None:
            if number == len(lines) and (not line.endswith(b"\n") or are_nuls(line)):
                break  # it was never committed, and the next writer drops it
            return _broken(lines, number, why, kept, expect)
        kept.append(event)
    return Repair(len(kept), anchored=any(_is_head(event, expect) for event in kept)), []


def _broken(
    lines: Sequence[bytes], number: int, why: str, kept: Sequence[Event], expect: str
) -> tuple[Repair, list[Event]]:
    tail = [(at, line) for at, line in enumerate(lines[number:], number + 1) if line.strip()]
    chained: list[Event] = []
    proven = 0
    for _, line in tail:
        event = _read(line)[0] if line.endswith(b"\n") else None
        if event is None or (chained and event.prev_hash != chained[-1].hash):
            break
        chained.append(event)
        if _is_head(event, expect):
            proven = len(chained)
    behind = [Line(at, _says(line)) for at, line in tail]
    unproven = (
        Line(number, _says(lines[number - 1]), why),
        *(replace(line, why="it is behind the break") for line in behind[proven:]),
    )
    return Repair(len(kept), unproven, tuple(behind[:proven]), bool(proven)), chained[:proven]


def _is_head(event: Event, expect: str) -> bool:
    return len(expect) >= SHORTEST_HEAD and event.hash.startswith(expect)


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


def _said_again(event: Event) -> Draft | None:
    """What a proven event says beside statuses, without moving anything: evidence, looks, why a model is not served."""
    said = {"proven": event.hash}
    if event.action == Action.EVALUATE:
        return Draft(event.action, (), {"key": event.detail["key"], **said}, event.evidence)
    if event.action == Action.LOOK:
        return Draft(event.action, (), {**event.detail, **said})
    if event.action not in (Action.REGISTER, Action.ADOPT):
        return None
    detail = {name: value for name, value in event.detail.items() if name not in ("entries", "result")}
    stays = tuple(replace(change, before=change.after) for change in event.changes)
    return Draft(event.action, stays, {**detail, **said})


def _standing(before: RegistryState, events: Iterable[Event]) -> dict[str, list[str]]:
    """The models that proven events put into quarantine or took out of it, and those whose evidence they ended."""
    quarantined = set(before.quarantined)
    ended: set[str] = set()
    for event in events:
        moved = [change for change in event.changes if event.forced or change.before != change.after]
        if event.action in (Action.PROMOTE, Action.ROLLBACK):
            quarantined -= {change.model_id for change in moved if change.after == Status.PRODUCTION}
        ended |= {change.model_id for change in moved if change.after in (None, Status.ARCHIVED)}
        if event.action == Action.EVALUATE and event.evidence is not None:
            ended.discard(event.evidence["challenger"])
        quarantined |= set(event.detail.get("quarantined", ()))
        quarantined -= set(event.detail.get("released", ()))
        ended |= set(event.detail.get("evidence_ended", ()))
    return {
        "quarantined": sorted(quarantined - before.quarantined),
        "released": sorted(before.quarantined - quarantined),
        "evidence_ended": sorted(ended),
    }


def _digests(events: Sequence[Event]) -> dict[str, str]:
    return {change.model_id: change.digest for event in events for change in event.changes if change.digest}
