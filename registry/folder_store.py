"""One registry folder: consistent reads without a lock, writes under one.

The rules:
1. The event log is the commit point; the index is its projection. A writer appends the event (fsync), then
   replaces the index (fsync, rename, fsync of the folder).
2. So an index that hashes to the last event's `index_sha256` is current, and one that hashes to the event
   before is merely late: it is projected again.
3. Any other index was edited from outside. What was changed is found against the most similar of the
   last few revisions (a program may have read an older one), laid over the state, and recorded as an
   `external_edit` event by the next writer. An index that equals one of those revisions row by row is
   late, not edited.
4. A file that someone is writing in place is left alone until it rests. One without a line is no edit.
5. A row that can't be read changes nothing: a model that was known before stays as it was.
6. A folder with a log, be it an empty one, or an index is a registry. One with neither is none, be it a disk's mount
   point: it is read as an error, and only `make` turns it into one.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from signalserve.common.files import read_regular, sha256_hex, sync_folder, write_atomically
from signalserve.common.log import LibraryLog
from signalserve.common.moments import utc_now
from signalserve.registry.entry import ModelRegistryEntry
from signalserve.registry.errors import (
    RegistryBusyError,
    RegistryGoneError,
    RegistryMissingError,
    StorageError,
)
from signalserve.registry.events import GENESIS, LOG_FILE, Action, Event, EventLog, StatusChange, json_safe
from signalserve.registry.index import INDEX_FILE, LARGEST_INDEX, Index, parse_index
from signalserve.registry.state import Edits, RegistryState, difference
from signalserve.registry.store import Draft, Origin, View, default_actor

DEFAULT_BASE_DIR = Path("outputs/ml_models")
LOCK_FILE = ".registry.lock"
LOCK_SECONDS = 60.0
_REMEMBERED = 8
_RESTS_SECONDS = 0.15
_SETTLED_AGE_SECONDS = 2.0

_log = LibraryLog("registry")


class FolderStore:
    """A registry folder. Safe to share between threads."""

    def __init__(self, base_dir: Path | str) -> None:
        self.base_dir = Path(base_dir)
        self.index_path = self.base_dir / INDEX_FILE
        self.log_path = self.base_dir / LOG_FILE
        self._mutex = threading.RLock()
        self._was_there = False
        self._waiting: dict[object, float] = {}
        self._events = EventLog(self.log_path)
        self._state = RegistryState()
        self._past: deque[tuple[str, dict[str, ModelRegistryEntry], tuple[str, ...]]] = deque(
            maxlen=_REMEMBERED
        )

    @property
    def location(self) -> str:
        """The folder."""
        return str(self.base_dir)

    def check(self) -> None:
        """See that there is a registry, be it an empty one.

        Raises:
            RegistryGoneError: it was there before: what is left is at most its mount point.
            RegistryMissingError: there is none.
            StorageError: the folder can't be looked into.
        """
        if self.exists():
            return
        # this may be a mount point, where another registry would stand in the way when the disk is back
        if self.base_dir.is_dir():
            raise RegistryMissingError(
                f"{self.base_dir} holds no registry: is its disk mounted? `signalserve registry init` makes one here"
            )
        raise RegistryMissingError(
            f"there is no registry at {self.base_dir}: is its disk there? `signalserve registry init` makes a new one"
        )

    def exists(self) -> bool:
        """Whether there is a registry, be it an empty one.

        Raises:
            RegistryGoneError: it was there before.
            StorageError: the folder can't be looked into.
        """
        if _is_there(self.log_path) or _is_there(self.index_path):
            self._events.check()
            self._was_there = True
        elif self._was_there:
            raise RegistryGoneError(
                f"the registry has gone from {self.base_dir}: is its disk there? Nothing is lost while it is away; "
                "bring it back (do not make another)"
            )
        return self._was_there

    def make(self) -> bool:
        """Make an empty registry where there is none, and say whether that was needed.

        Its mark is an empty event log, by which it differs from a disk's mount point.

        Raises:
            RegistryGoneError: it was there before, and shall come back.
            StorageError: it can't be made.
        """
        if self.exists():
            return False
        try:
            self.base_dir.mkdir(parents=True, exist_ok=True)
            with self.log_path.open(
                "ab"
            ):  # one that another process makes and writes to meanwhile stays as it is
                pass
            sync_folder(self.base_dir)
        except OSError as error:
            raise StorageError(f"{self.base_dir}: {error.strerror or error}") from error
        return self.exists()

    def signature(self) -> Hashable:
        """Inode, size and time of the log and the index."""
        return tuple(_stat(path) for path in (self.log_path, self.index_path))

    def events(self, since: int = 0) -> Sequence[Event]:
        """The log's events after a revision; reads the log anew, beside whoever writes.

        Raises:
            RegistryMissingError: there is none, or it has gone.
            StorageError: it can't be read, or is no whole chain.
        """
        _, events = EventLog(self.log_path).read_new()
        if not events:
            self.view()  # which knows what is a registry
        return events[since:] if since else events

    def view(self, *, wait: bool = False) -> View:
        """The present state, hand edits included. Takes no lock and writes nothing.

        With `wait`, an index that someone is writing in place is waited for, up to some seconds.

        Raises:
            RegistryMissingError: there is none, or it has gone.
            StorageError: the log or the index can't be read, or the log is no whole chain.
        """
        with self._mutex:
            self.check()
            while True:
                self._catch_up()
                content = self._read_index(wait=wait)
                if self._catch_up() == 0:  # no writer in between: index and log belong together
                    view = self._merged(content)[0]
                    if content is None and not view.state.revision:
                        self.check()  # the index may have gone just now
                    return view

    def awaited(self) -> float:
        """Seconds for which a writer of this process has been waiting for the lock now; 0.0 where none is."""
        began = list(self._waiting.values())
        return time.monotonic() - min(began) if began else 0.0

    @contextmanager
    def transaction(self, origin: Origin) -> Iterator[FolderTransaction]:
        """Hold the lock; the registry is repaired and hand edits are recorded before the block begins.

        Raises:
            RegistryMissingError: there is no registry, or it has gone.
            RegistryBusyError: another writer holds the lock for too long.
            StorageError: as for `view`, or nothing can be written.
        """
        self.check()
        try:
            lock = FileLock(self.base_dir / LOCK_FILE, timeout=LOCK_SECONDS, is_singleton=False)
            with self._waits():
                lock.acquire()
        except Timeout as error:
            raise RegistryBusyError(
                f"{self.base_dir}: another writer has held the lock for {LOCK_SECONDS:.0f} s"
            ) from error
        except OSError as error:
            raise StorageError(f"{self.base_dir}: {error.strerror or error}") from error
        try:
            # readers of this process wait for a repair or a commit, never for the whole turn
            with self._mutex:
                self._repair()
            yield FolderTransaction(self, origin)
        finally:
            lock.release()

    @contextmanager
    def _waits(self) -> Iterator[None]:
        turn = object()
        self._waiting[turn] = time.monotonic()
        try:
            yield
        finally:
            del self._waiting[turn]

    def _catch_up(self) -> int:
        restarted, events = self._events.read_new()
        if restarted:
            self._state = RegistryState()
            self._past.clear()
        elif events:
            self._state = self._state.copy()  # readers may hold the old one
        for number, event in enumerate(events, 1):
            self._state.apply(event)
            if len(events) - number < _REMEMBERED:
                self._remember(event)
        return len(events)

    def _remember(self, event: Event) -> None:
        self._past.append((event.index_sha256, dict(self._state.entries), self._state.raw_rows))

    def _read_index(self, *, wait: bool) -> bytes | None:
        """The index's bytes; None where there is no file. With `wait`, a file in motion is waited for."""
        patience = time.monotonic() + 5.0
        while True:
            try:
                before = self.index_path.stat()
                content = read_regular(self.index_path, largest=LARGEST_INDEX)
            except FileNotFoundError:
                return None
            except OSError as error:
                raise StorageError(f"{self.index_path}: {error.strerror or error}") from error
            known = any(sha256_hex(content) == digest for digest, _, _ in self._past)
            old = time.time() - before.st_mtime > _SETTLED_AGE_SECONDS
            if not wait or known or old or time.monotonic() > patience:
                return content
            time.sleep(_RESTS_SECONDS)
            after = self.index_path.stat()
            if (after.st_mtime_ns, after.st_size) == (before.st_mtime_ns, before.st_size):
                return content

    def _merged(self, content: bytes | None) -> tuple[View, Draft | None]:
        """The state with the index's edits laid over it, and the event that would record them."""
        if (
            content is None
            or not content.strip()
            or any(sha256_hex(content) == past[0] for past in list(self._past)[-2:])
        ):
            unreadable = parse_index(self._state.render()).unreadable if self._state.raw_rows else ()
            return View(self._state, unreadable), None
        index = parse_index(content)
        edits = self._edits(index)
        if len(edits) == 0:
            return View(self._state, index.unreadable), None
        draft = _external_edit(self._state, edits)
        state = self._state.copy()
        state.apply(
            Event(state.revision, "", "", "", draft.action, changes=draft.changes, detail=draft.detail)
        )
        return View(state, index.unreadable, edited_outside=True), draft

    def _edits(self, index: Index) -> Edits:
        if not self._past:
            return difference({}, (), index)
        candidates = [difference(entries, raw, index) for _, entries, raw in reversed(self._past)]
        return min(candidates, key=len)  # the newest revision wins a tie

    def _repair(self) -> None:
        self._catch_up()
        content = self._read_index(wait=True)
        last = self._events.last
        _, draft = self._merged(content)
        if draft is not None:
            event = self._commit(
                draft, Origin(actor="unknown", via="python", reason="the index was edited by hand")
            )
            _log.info("registry.external_edit_recorded", revision=event.revision, changes=len(event.changes))
        elif last is not None and (content is None or sha256_hex(content) != last.index_sha256):
            write_atomically(self.index_path, self._state.render())

    def _commit(self, draft: Draft, origin: Origin) -> Event:
        last = self._events.last
        unhashed = Event(
            revision=self._state.revision + 1,
            time=utc_now().isoformat(timespec="microseconds").replace("+00:00", "Z"),
            actor=origin.actor or default_actor(),
            via=origin.via,
            action=draft.action,
            request_id=origin.request_id,
            reason=origin.reason,
            forced=draft.forced,
            changes=draft.changes,
            evidence=json_safe(draft.evidence),
            detail=json_safe(draft.detail),
            prev_hash=last.hash if last else GENESIS,
        )
        after = self._state.copy()
        after.apply(unhashed)
        content = after.render()
        event = replace(unhashed, index_sha256=sha256_hex(content))
        event = replace(event, hash=event.digest())
        self._events.append(event)
        after.requests = {**self._state.requests, **({event.request_id: event} if event.request_id else {})}
        self._state = after
        self._remember(event)
        try:
            write_atomically(self.index_path, content)
        except (
            OSError
        ) as error:  # committed all the same: every reader projects the log, the next writer repairs
            _log.warning("registry.index_not_written", path=str(self.index_path), error=str(error))
        return event


class FolderTransaction:
    """A writer's turn: the state as it is, and `commit`."""

    def __init__(self, store: FolderStore, origin: Origin) -> None:
        self._store = store
        self.origin = origin

    @property
    def state(self) -> RegistryState:
        """The state that the next commit builds on."""
        return self._store._state

    def commit(self, draft: Draft, *, follows: bool = False) -> Event:
        """Make a change durable; it is committed when this returns.

        `follows`: it is a consequence of the change that was asked for, so a retry's answer is not in it.

        Raises:
            StorageError: nothing was committed.
        """
        origin = replace(self.origin, request_id="") if follows else self.origin
        with self._store._mutex:
            return self._store._commit(draft, origin)


_stores: dict[Path, FolderStore] = {}
_stores_lock = threading.Lock()


def open_store(base_dir: Path | str) -> FolderStore:
    """The store of a folder; one a process and folder, so that the log is read once."""
    resolved = Path(base_dir).resolve()
    with _stores_lock:
        store = _stores.get(resolved)
        if store is None:
            store = _stores[resolved] = FolderStore(resolved)
        return store


def _is_there(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:  # a disk that fails is no absent file
        raise StorageError(f"{path}: {error.strerror or error}") from error
    return True


def _stat(path: Path) -> tuple[int, int, int]:
    try:
        status = os.stat(path)  # noqa: PTH116 - the hot poll; a Path would be built again each time
    except OSError:
        return (0, 0, 0)
    return (status.st_ino, status.st_size, status.st_mtime_ns)


def _external_edit(state: RegistryState, edits: Edits) -> Draft:
    changes: list[StatusChange] = []
    for entry in edits.written:
        before = state.entries.get(entry.model_id)
        if before is None or before.status != entry.status:
            changes.append(
                StatusChange(
                    entry.symbol,
                    entry.timeframe,
                    entry.model_id,
                    before.status if before else None,
                    entry.status,
                    state.digests.get(entry.model_id, ""),
                )
            )
    # leaving production comes first, so that the new model ends on top of the key's history
    changes.sort(key=lambda change: change.after == "production")
    for model_id in edits.removed:
        if model_id in state.entries:
            gone = state.entries[model_id]
            changes.append(StatusChange(gone.symbol, gone.timeframe, model_id, gone.status, None))
    detail: dict[str, Any] = {"entries": [entry.to_row() for entry in edits.written]}
    if edits.raw_rows is not None:
        detail["raw_rows"] = list(edits.raw_rows)
    return Draft(Action.EXTERNAL_EDIT, tuple(changes), detail)
