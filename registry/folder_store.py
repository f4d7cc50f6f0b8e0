"""One registry folder: consistent reads without a lock, writes under one.

The rules:
1. The event log is the commit point; the index is its projection. A writer writes the index aside (fsync), appends the
   event (fsync), then puts the index in its place (rename, fsync of the folder).
2. What the index is beside the log, `registry.outside` says. An edit is laid over the state, and recorded as an
   `external_edit` event by the next writer; a late index is projected again; one that is asked about is left where it
   is until the next writer keeps it aside, or somebody accepts it.
3. A file that someone is writing in place is left alone until it rests. One without a line is no edit.
4. A folder with a log, be it an empty one, or an index is a registry. One with neither is none, be it a disk's mount
   point: it is read as an error, and only `make` turns it into one.
5. Readers take what was read last, as long as both files are as they were then. Who finds something new takes it in,
   one reader after the other; nobody waits for a writer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from signalserve.common.collector import collector_paused
from signalserve.common.files import (
    file_sha256,
    is_folder,
    read_regular,
    sha256_hex,
    sync_folder,
    write_atomically,
)
from signalserve.common.log import LibraryLog
from signalserve.common.moments import utc_now
from signalserve.registry import checkpoint
from signalserve.registry.acceptance import acceptance_of
from signalserve.registry.checkpoint import Checkpoint
from signalserve.registry.entry import ModelRegistryEntry
from signalserve.registry.errors import (
    LogCorruptError,
    PreconditionError,
    RegistryGoneError,
    RegistryMissingError,
    StorageError,
)
from signalserve.registry.events import (
    GENESIS,
    LOG_FILE,
    Action,
    Beginning,
    Event,
    EventLog,
    News,
    StatusChange,
    canonical,
    json_safe,
)
from signalserve.registry.index import INDEX_FILE, LARGEST_INDEX, parse_index
from signalserve.registry.index_file import IndexFile, Lying, mark_of
from signalserve.registry.lock import LOCK_FILE, take_lock
from signalserve.registry.outside import Edit, Found, external_edit, judge, laid_over
from signalserve.registry.projections import Projections
from signalserve.registry.signing import Signer
from signalserve.registry.state import Answer, RegistryState
from signalserve.registry.store import LOCK_SECONDS, Acceptance, Draft, KeptIndex, Origin, View, default_actor
from signalserve.registry.traces import ASIDE_PREFIX, MERGED_PREFIX, trace_of_a_log

DEFAULT_BASE_DIR = Path("outputs/ml_models")
_RESTS_SECONDS = 0.15
_SETTLED_AGE_SECONDS = 2.0
# a file that changed so lately may change again without looking different
_RACY_SECONDS = 0.1
# an index that is replaced all the time is looked at anew so often
_LOOKS = 20

_log = LibraryLog("registry")


class FolderStore:
    """A registry folder. Safe to share between threads."""

    def __init__(
        self, base_dir: Path | str, models_dir: Path | None = None, log: EventLog | None = None
    ) -> None:
        """`models_dir` is where the models' folders are; by default beside the index. `log` reads the folder's log."""
        self.base_dir = Path(base_dir)
        self.signer: Signer | None = None  # signs each event; the composition root sets it
        self._models_dir = self.base_dir if models_dir is None else models_dir
        self.index_path = self.base_dir / INDEX_FILE
        self.log_path = self.base_dir / LOG_FILE
        self._taking_in = threading.Lock()
        self._was_there = False
        self._waiting: dict[object, float] = {}
        self._events = EventLog(self.log_path) if log is None else log
        self._state = RegistryState()
        self._projections = Projections()
        self._lost: Event | None = None
        self._index = IndexFile(self.index_path)
        self._index_read = ""
        self._swept = False
        self._turn = 0
        self._judged_last: tuple[Hashable, Found] | None = None
        self._published: tuple[Hashable, View] | None = None
        self._checkpoint: Checkpoint | None = None
        self._kept_revision = 0

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
        """Inode, size and times of the log and the index."""
        return mark_of(self.log_path), mark_of(self.index_path)

    def events(self, since: int = 0) -> Sequence[Event]:
        """The log's events after a revision; reads the log anew, beside whoever writes.

        Raises:
            RegistryMissingError: there is none, or it has gone.
            StorageError: it can't be read, or is no whole chain.
        """
        events = EventLog(self.log_path).read_new().events
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
        if wait:
            self._wait_until_it_rests()
        signature, now = self.signature(), time.time()
        published = self._published
        if published is not None and published[0] == signature:
            return published[1]
        with self._taking_in:
            self.check()
            while True:
                self._catch_up()
                lying = self._look()
                if self._catch_up() == 0:  # no writer in between: index and log belong together
                    self._check_emptied(lying)
                    view = self._seen(self._judged(lying))[0]
                    if lying.content is None and not view.state.revision:
                        self.check()  # the index may have gone just now
                    # a folder may go without a sign in either file, and what can't be read may be read again
                    lasts = self._is_settled(now) and not (
                        view.remarks or view.edited_outside or lying.problem
                    )
                    self._published = (signature, view) if lasts else None
                    return view

    def asked_about(self) -> KeptIndex | None:
        """The index that is asked about, where it lies or else as it was last kept aside; None for none.

        Raises:
            RegistryMissingError, StorageError: as for `view`, or it can't be read.
        """
        if self.view(wait=True).asked:
            return read_kept(self.index_path)
        kept = [path for path in self.base_dir.glob(f"{ASIDE_PREFIX}*") if path.is_file()]
        return read_kept(max(kept, key=lambda path: mark_of(path).modified)) if kept else None

    def plan_acceptance(self, content: bytes) -> Acceptance:
        """What `accept` would do with an index now.

        Raises:
            InvalidArgumentError: none of its rows can be read.
            ArtefactError: a model would go into production whose folder is not there.
            RegistryMissingError, StorageError: as for `view`.
        """
        return acceptance_of(content, self.view(wait=True).state, self._stands)

    def accept(
        self,
        content: bytes,
        origin: Origin,
        *,
        shown: Acceptance | None = None,
        repaired: Mapping[str, Any] | None = None,
        digests: Mapping[str, str] = MappingProxyType({}),
    ) -> Event | None:
        """Take an index as it is, as a decision: None where it changes nothing.

        `shown` is what somebody was shown that it would do. `repaired` is what the repair of a log says of itself;
        `digests` are those of models that it proves.

        Raises:
            InvalidArgumentError, ArtefactError: as for `plan_acceptance`.
            PreconditionError: it would no longer do what was shown.
            RegistryMissingError, RegistryBusyError, StorageError: as for `transaction`.
        """
        with self._turn_of(origin, taken=content):
            state = self._state
            now = acceptance_of(content, state, self._stands, as_it_lies=repaired is not None)
            if shown is not None and now != shown:
                raise PreconditionError(
                    "the registry was changed meanwhile, and the index would not do what was shown: look again",
                    reason="CHANGED_MEANWHILE",
                )
            event, draft = None, now.recorded
            if repaired is not None:
                changes = _with_digests(draft, state, digests)
                detail = {**draft.detail, **repaired}
                event = self._commit(
                    replace(draft, action=Action.REPAIR, changes=changes, detail=detail), origin
                )
            elif now.changes:
                event = self._commit(draft, origin)
            (self.base_dir / aside_name(content)).unlink(missing_ok=True)
        return event

    def awaited(self) -> float:
        """Seconds for which a writer of this process has been waiting for the lock now; 0.0 where none is."""
        began = list(self._waiting.values())
        return time.monotonic() - min(began) if began else 0.0

    def transaction(
        self, origin: Origin, seconds: float = LOCK_SECONDS
    ) -> AbstractContextManager[FolderTransaction]:
        """Hold the lock; the registry is repaired and hand edits are recorded before the block begins.

        Raises:
            RegistryMissingError: there is no registry, or it has gone.
            RegistryBusyError: another writer holds the lock for too long.
            StorageError: as for `view`, or nothing can be written.
        """
        return self._turn_of(origin, seconds)

    @contextmanager
    def _turn_of(
        self, origin: Origin, seconds: float = LOCK_SECONDS, taken: bytes = b""
    ) -> Iterator[FolderTransaction]:
        """`taken` is an index that the turn is about to take: that it is kept aside is said where it is not taken."""
        self.check()
        with self._waits():
            lock = take_lock(self.base_dir, seconds)
        try:
            self._turn = mark_of(self.base_dir / LOCK_FILE).inode
            kept = self._repair(origin.via, taken)
            try:
                yield FolderTransaction(self, origin)
            except BaseException:
                if kept is not None:
                    self._tell_kept(kept)
                raise
        finally:
            lock.release()
        self._keep_checkpoint()

    @contextmanager
    def _waits(self) -> Iterator[None]:
        turn = object()
        self._waiting[turn] = time.monotonic()
        try:
            yield
        finally:
            del self._waiting[turn]

    def _catch_up(self) -> int:
        if self._events.last is not None:
            return self._take_in(self._events.read_new())
        with collector_paused():  # it may be a long log
            return self._take_in(self._events.read_new(self._saved_beginning))

    def _saved_beginning(self) -> Beginning | None:
        self._checkpoint = checkpoint.load(self.base_dir)
        return None if self._checkpoint is None else self._checkpoint.beginning

    def _take_in(self, news: News) -> int:
        saved, self._checkpoint = self._checkpoint, None
        if news.after is not None and saved is not None:
            self._state, self._projections = saved.state, saved.projections
            self._kept_revision = saved.state.revision
        elif news.restarted:
            self._state, self._projections = RegistryState(), Projections()
            self._kept_revision = 0
        elif news.events:
            self._state = self._state.copy()  # readers may hold the old one
        self._look_for_lost(news)
        for event in news.events:
            self._state.apply(event)
            self._projections.take(event, self._state)
        return len(news.events)

    def _take_own(self, event: Event, after: RegistryState) -> None:
        """Read an event back that was appended just now; `after` is the state with it."""
        news = self._events.read_new()
        if news.restarted or [found.hash for found in news.events] != [event.hash]:
            self._take_in(news)  # a reader has met it already
            return
        if event.request_id:
            after.requests[event.request_id] = Answer.of(event)
        self._state = after
        self._projections.take(event, after)

    def _keep_checkpoint(self) -> None:
        """Save the next cold open the events that it need not read, where there are many."""
        with self._taking_in:
            beginning = self._events.beginning
            if (
                beginning is None
                or beginning.revision != self._state.revision
                or not checkpoint.is_due(beginning, self._kept_revision)
            ):
                return
            self._kept_revision = beginning.revision
            found = Checkpoint(beginning, self._state, self._projections.copy())
        try:
            found.save(self.base_dir)
        except OSError as error:
            _log.warning("registry.checkpoint_not_written", path=self.location, error=str(error))

    def _look_for_lost(self, news: News) -> None:
        if any(
            event.action == Action.REPAIR or (self._lost is not None and event.hash == self._lost.hash)
            for event in news.events
        ):
            self._lost = None  # somebody knows of it, or what had been read first is back
        elif news.lost is not None:
            self._lost = self._lost or news.lost
            _log.warning("registry.went_back", why=self._alarm())

    def _alarm(self) -> str:
        if self._lost is None:
            return ""
        return (
            f"the log no longer holds revision {self._lost.revision} ({self._lost.hash[:12]}), which was read here: it "
            "was cut off, rewritten or put back from a backup, or its disk failed as it was written"
        )

    def _wait_until_it_rests(self) -> None:
        """Wait for an index that someone is writing in place, up to some seconds."""
        patience = time.monotonic() + 5.0
        while time.monotonic() < patience:
            before = mark_of(self.index_path)
            age = time.time() - before.modified / 1e9
            if not any(before) or age > _SETTLED_AGE_SECONDS or self._is_ours():
                return
            time.sleep(_RESTS_SECONDS)
            if mark_of(self.index_path) == before:
                return

    def _is_ours(self) -> bool:
        last = self._events.last
        try:
            return (
                last is not None and file_sha256(self.index_path, largest=LARGEST_INDEX) == last.index_sha256
            )
        except OSError:
            return False

    def _is_settled(self, now: float) -> bool:
        return all(
            now - mark_of(path).changed / 1e9 > _RACY_SECONDS for path in (self.log_path, self.index_path)
        )

    def _read_index(self) -> bytes | None:
        """The index's bytes; None where there is no file."""
        lying = self._index.read()
        if lying.problem:
            raise StorageError(f"{self.index_path}: {lying.problem}")
        return lying.content

    def _look(self) -> Lying:
        """The index as it lies, and whether it is late."""
        last = self._events.last
        for _ in range(_LOOKS):
            lying = self._index.read()
            if last is None:
                break
            late = lying.digest != last.index_sha256 and self._index.is_late(last.index_sha256)
            # what is not late any more has just been replaced
            if late or mark_of(self.index_path) == lying.mark:
                no_room = late and not self._index.is_late(last.index_sha256, whole=True)
                return replace(lying, late=late, no_room=no_room)
        return lying

    def _check_emptied(self, lying: Lying) -> None:
        """See that a log without an event is one that never had any.

        Raises:
            LogCorruptError: what lies beside it says that it had.
        """
        if self._state.revision or not lying.content or not _is_there(self.log_path):
            return
        trace = trace_of_a_log(self.base_dir, parse_index(lying.content).entries)
        if trace:
            raise LogCorruptError(
                f"{self.log_path}: there is no event in the log, but {trace}: the log was emptied. Put it back; the "
                "runbook in docs/registry.md says what to do without one"
            )

    def _seen(self, found: Found) -> tuple[View, Draft | None]:
        """The state with the index's edits laid over it, and the event that would record them."""
        unreadable, alarm = found.unreadable, self._alarm()
        edit = found.edit
        if edit is None or found.current:
            return View(self._state, unreadable, asked=found.asked, legible=found.legible, alarm=alarm), None
        remarks = _remarks(edit, self._state.revision)
        if not edit.changes:
            return View(self._state, unreadable, remarks=remarks, alarm=alarm), None
        draft = external_edit(self._state, edit)
        state = laid_over(self._state, draft)
        # a row that can't be read changes nothing, and may be mended where it stands
        edited = bool(edit.written or edit.removed)
        return View(state, unreadable, edited_outside=edited, remarks=remarks, alarm=alarm), draft

    def _judged(self, lying: Lying) -> Found:
        last, content = self._events.last, lying.content
        if lying.problem:
            if not self._state.revision:
                raise StorageError(f"{self.index_path}: {lying.problem}")
            return Found(asked=f"it can't be read: {lying.problem}", legible=False)
        if content is None or not content.strip() or (last and lying.digest == last.index_sha256):
            known = parse_index(self._state.render()).unreadable if self._state.raw_rows else ()
            return Found(current=bool(content and content.strip()), unreadable=known)
        about = (
            lying.digest,
            lying.mark,
            lying.late,
            lying.no_room,
            last.hash if last else "",
            mark_of(self.log_path),
        )
        if self._judged_last is not None and self._judged_last[0] == about:
            return self._judged_last[1]
        with collector_paused():  # it may have many rows
            found = judge(
                content,
                self._state,
                self._projections,
                unfinished=lying.late,
                no_room=lying.no_room,
                stands=self._stands,
            )
        if found.edit is not None and found.edit.changes and self._lost is not None:
            # beside a log that went back, what is newer than it is no edit
            found = Found(
                asked="the log went back, and the index is not of what is left", unreadable=found.unreadable
            )
        # a folder may go without a sign in either file
        lasts = found.edit is None or not (found.edit.removed or found.edit.written_back)
        self._judged_last = (about, found) if lasts else None
        return found

    def _stands(self, model_id: str, entry: ModelRegistryEntry) -> bool:
        """Whether a model's folder is there."""
        return is_folder(self._models_dir / model_id) or bool(entry.path and is_folder(Path(entry.path)))

    def _repair(self, via: str, taken: bytes) -> Path | None:
        """Where `taken` was kept aside, of which nothing was said."""
        kept = None
        self._wait_until_it_rests()
        if not self._swept:
            self._index.sweep(LOCK_SECONDS)
            self._swept = True
        with self._taking_in:
            self._catch_up()
            lying = self._look()
            self._check_emptied(lying)
            content = lying.content
            self._index_read = lying.digest
            found = self._judged(lying)
            draft = self._seen(found)[1]
        if draft is not None:
            if found.edit is not None and found.edit.base != self._state.revision:
                self._keep_aside(content or b"", MERGED_PREFIX)
            event = self._commit(
                draft, Origin(actor="unknown", via=via, reason="the index was edited by hand")
            )
            _log.info("registry.external_edit_recorded", revision=event.revision, changes=len(event.changes))
        elif not found.current and self._state.revision:
            if lying.problem:
                self._move_aside()
            elif found.asked:
                path = self._keep_aside(content or b"", say=content != taken)
                kept = path if content == taken else None
            elif found.several:
                try:
                    self._keep_aside(content or b"")
                except StorageError as error:
                    self._tell_unwritten(error)
                    return None
            projected = self._state.render()
            self._put(projected, sha256_hex(projected))
        else:
            self._index.forget()  # of a writer that was killed before its event
        return kept

    def _move_aside(self) -> None:
        """Move what lies in the index's place and can't be read out of the way, whole."""
        try:
            aside = self._index.move_aside(self.base_dir)
        except OSError as error:
            raise StorageError(
                f"{self.index_path} can't be read, nor moved aside ({error.strerror or error}): move it away"
            ) from error
        _log.warning("registry.index_moved_aside", path=str(aside))

    def _keep_aside(self, content: bytes, prefix: str = ASIDE_PREFIX, *, say: bool = True) -> Path:
        """Leave an index that is not followed, or an old copy whose edits are taken, under a name of its own."""
        path = self.base_dir / aside_name(content, prefix)
        self._write(path, content)
        if say:
            self._tell_kept(path)
        return path

    def _tell_kept(self, path: Path) -> None:
        _log.warning("registry.index_kept_aside", path=str(path))

    def _keep_what_came_in(self) -> None:
        """Keep an index aside that somebody saved since this turn began."""
        content = self._read_index()
        if content and sha256_hex(content) != self._index_read:
            self._keep_aside(content)

    def _write(self, path: Path, content: bytes) -> None:
        try:
            write_atomically(path, content)
        except OSError as error:
            raise StorageError(f"{path}: {error.strerror or error}") from error

    def _check_turn(self) -> None:
        """See that nobody else can have a turn: another writer locks another file where this one's was removed."""
        if mark_of(self.base_dir / LOCK_FILE).inode != self._turn:
            raise StorageError(
                f"{self.base_dir / LOCK_FILE} was removed while this change was being made; nothing was changed, try "
                "again"
            )

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
        if self.signer is not None:
            event = replace(event, signature=self.signer(canonical(event.body())))
        event = replace(event, hash=event.digest())
        self._check_turn()
        self._index.announce(content)
        try:
            self._events.append(event)
        except StorageError:
            newest = "" if last is None else last.index_sha256
            self._index.forget("" if self._index_read == newest else newest)
            raise
        # it is committed, whether it can be read back just now or not
        with self._taking_in, suppress(StorageError):
            self._take_own(event, after)
        try:
            self._keep_what_came_in()
        except StorageError as error:
            self._tell_unwritten(error)
        else:
            self._put(content, event.index_sha256)
        return event

    def _put(self, content: bytes, digest: str) -> None:
        try:
            self._index.put(content)
            self._index_read = digest
        except OSError as error:
            self._tell_unwritten(error)

    def _tell_unwritten(self, error: Exception) -> None:
        """All the same what the log says holds: every reader projects it, and the next writer tries again."""
        _log.warning("registry.index_not_written", path=str(self.index_path), error=str(error))


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
        return self._store._commit(draft, origin)


_stores: dict[Path, FolderStore] = {}
_stores_lock = threading.Lock()


def open_store(base_dir: Path | str, signer: Signer | None = None) -> FolderStore:
    """The store of a folder; one a process and folder, so that the log is read once.

    It signs with the `signer` that it was given last; None leaves that as it is.
    """
    resolved = Path(base_dir).resolve()
    with _stores_lock:
        store = _stores.get(resolved)
        if store is None:
            store = _stores[resolved] = FolderStore(resolved)
        if signer is not None:
            store.signer = signer
        return store


def _is_there(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:  # a disk that fails is no absent file
        raise StorageError(f"{path}: {error.strerror or error}") from error
    return True


def read_kept(path: Path) -> KeptIndex:
    """An index file that may be accepted.

    Raises:
        StorageError: it can't be read.
    """
    try:
        content = read_regular(path, largest=LARGEST_INDEX)
        return KeptIndex(path, datetime.fromtimestamp(path.stat().st_mtime, UTC), content)
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from error


def aside_name(content: bytes, prefix: str = ASIDE_PREFIX) -> str:
    """Under which name an index is kept aside."""
    return f"{prefix}{sha256_hex(content)[:12]}.csv"


def _remarks(edit: Edit, revision: int) -> tuple[str, ...]:
    found = []
    if edit.base != revision:
        found.append(
            f"the index was edited on a copy of revision {edit.base}: what was decided since stays where the edit did "
            "not change it"
        )
    if edit.written_back:
        names = ", ".join(edit.written_back[:5]) + (" ..." if len(edit.written_back) > 5 else "")
        found.append(
            f"rows of models whose folders are there are missing from the index and will be written back: {names}"
        )
    return tuple(found)


def _with_digests(draft: Draft, state: RegistryState, digests: Mapping[str, str]) -> tuple[StatusChange, ...]:
    """The changes with the digests that are known of their models, and one for each other model of which one is."""
    written = (ModelRegistryEntry.from_row(row) for row in draft.detail["entries"])
    entries = {**state.entries, **{entry.model_id: entry for entry in written}}
    moved = {change.model_id for change in draft.changes}
    known = tuple(
        replace(change, digest=digests.get(change.model_id, change.digest)) for change in draft.changes
    )
    return known + tuple(
        StatusChange(entry.symbol, entry.timeframe, model_id, entry.status, entry.status, digests[model_id])
        for model_id, entry in entries.items()
        if model_id in digests and model_id not in moved and state.digests.get(model_id) != digests[model_id]
    )
