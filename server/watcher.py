"""Follows the registry: sees a change, has what is new loaded, and serves each model as soon as it is.

1. The store's signature (`stat` of the log and the index) every `server.poll_ms`; no inotify, since registries
   live on NFS too.
2. Keys are independent: each model that has loaded is served at once, whatever the others do. Until then its key
   answers with the model that it had.
3. All blocking work is done in worker threads; the event loop only assigns the new snapshot.
4. A model that failed to load, or takes too long, is tried again after a while, at each change, and when a load that
   hung has ended.
5. A registry that can't be read, or has gone, or does not answer, leaves the present snapshot serving; `trouble` says
   so until it is back. `warnings` says where changes wait for somebody else's turn at the registry.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Hashable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import structlog

from signalserve.common.key import Key
from signalserve.registry.entry import ModelRegistryEntry
from signalserve.registry.errors import RegistryError
from signalserve.registry.store import Store
from signalserve.server.deadline import wait_seconds
from signalserve.server.errors import LoadTimeoutError
from signalserve.server.limits import ModelChoice
from signalserve.server.loader import Loader
from signalserve.server.loading import Loading
from signalserve.server.named import NamedModels
from signalserve.server.snapshot import Behind, LoadFailure, ServedModel, ServingSnapshot, ServingState
from signalserve.server.threads import Job, StillRunningError, Threads
from signalserve.server.wanted import Wanted, snapshot_of, wanted_of

_FIRST_RETRY, _LONGEST_RETRY = 2.0, 30.0
# a commit takes some milliseconds: who waits longer for the registry's lock waits for something that hangs
_LONG_TURN_SECONDS = 2.0
# while much is being loaded, this much longer than a snapshot took to build passes before the next
_PAUSE_FACTOR = 10.0

# so often in a row an edit by hand could not be recorded before that is said
_VAIN_LOOKS = 4

_log = structlog.get_logger("server")


class _Retry(NamedTuple):
    """When a load that failed is tried again, in monotonic seconds, how long the pause was, and what hangs."""

    due: float
    pause: float
    hangs: asyncio.Future[Any] | None = None


class _Seen(NamedTuple):
    """What a look at a changed registry found: what is wanted, what of it is loaded, and what is not."""

    signature: Hashable
    wanted: Wanted
    kept: dict[Key, ServedModel]
    new: list[Key]


class RegistryWatcher:
    """Keeps a `ServingState` at the registry's newest revision."""

    def __init__(
        self,
        store: Store,
        loader: Loader,
        loading: Loading,
        choice: ModelChoice,
        state: ServingState,
        named: NamedModels,
        *,
        poll_seconds: float,
        patience: float,
        strict: bool,
        count_swap: Callable[[], None],
        record_edits: Callable[[], None],
    ) -> None:
        """`record_edits` gives edits by hand their event, or raises where that can't be done now.

        `patience`: seconds after which a registry that does not answer is said so; `strict`: see `snapshot_of`.
        """
        self._record_edits = record_edits
        self._unrecorded = self._told_unrecorded = ""
        self._vain_looks = 0
        self.index_asked = self.log_went_back = False
        self._store = store
        self._loader = loader
        self._loading = loading
        self._choice = choice
        self._state = state
        self._named = named
        self._count_swap = count_swap
        self._poll_seconds = poll_seconds
        self._patience = patience
        self._strict = strict
        self._reading = Threads("registry-follow", 1)
        self._building = Threads("snapshot", 1)
        self._look_job: Job[_Seen | None] | None = None
        self._signature: Hashable = None
        self._wanted: Wanted | None = None
        self._models: dict[Key, ServedModel] = {}
        self._failures: dict[Key, LoadFailure] = {}
        self._pending: dict[Key, Behind] = {}
        self._not_current: dict[Key, Behind] = {}
        self._retries: dict[Key, _Retry] = {}
        self._proven: dict[tuple[str, str], ServedModel] = {}
        self._loads: dict[tuple[Key, str, str], asyncio.Task[None]] = {}
        self._started = False
        self._nudge = asyncio.Event()
        self._news = asyncio.Event()
        self._changed = asyncio.Condition()
        self.trouble = ""
        self._turn_awaited = False
        self.seen_revision = 0
        self.version = 0

    async def run(self) -> None:
        """Follow the registry until cancelled."""
        publishing = asyncio.create_task(self._publish(), name="snapshots")
        try:
            while True:
                try:
                    await self.look()
                    await self._say_turn(awaited=self._store.awaited() >= _LONG_TURN_SECONDS)
                except Exception as error:  # noqa: BLE001 - the watcher must outlive a bug
                    _log.error("watcher.crashed", exc_info=error)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._nudge.wait(), self._poll_seconds)
                self._nudge.clear()
        finally:
            for task in (publishing, *self._loads.values()):
                task.cancel()
            self._loading.close()
            self._reading.close()
            self._building.close()

    def nudge(self) -> None:
        """Look at the registry now, and not only at the next poll."""
        self._nudge.set()

    def warnings(self) -> list[str]:
        """What keeps changes from being made, for people; none while they are."""
        found = []
        if self._unrecorded:
            found.append(f"the index was edited by hand, and no event says so yet: {self._unrecorded}")
        if not self._turn_awaited:
            return found
        return [
            *found,
            f"{self._store.location}: a change has been waiting for its turn for {self._store.awaited():.0f} s, as "
            "another program holds the registry's lock; what is served goes on",
        ]

    async def look(self) -> None:
        """Look at the registry, and begin to load what is new; `run` alone calls this."""
        self._retry_failed()
        if self._look_job is None:
            self._look_job = self._reading.begin(
                self._look, self._signature, dict(self._models), always=bool(self.trouble or self._vain_looks)
            )
        try:
            seen = await self._look_job.result(self._patience)
        except StillRunningError:
            await self._say(
                f"{self._store.location} has not answered for {self._patience:g} s; what is served goes on"
            )
            return  # its thread is not given another look to hang in
        except (RegistryError, OSError) as error:
            self._look_job = None
            await self._say(str(error))
            return
        except BaseException:
            self._look_job = None
            raise
        self._look_job = None
        await self._say("")
        if self._told_unrecorded != self._unrecorded:
            self._told_unrecorded = self._unrecorded
            await self.tell()
        if seen is not None:
            self._take(seen)

    async def wait_for_revision(
        self, revision: int, until: float | None, keys: Collection[Key] = ()
    ) -> ServingSnapshot:
        """The snapshot once the keys answer by `revision` or a later one; the present one when time is up.

        `until` is a moment as of `server.deadline`.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_seconds(until)), self._changed:
                while not reaches(self._state.snapshot, revision, keys):
                    if self._state.snapshot.revision < revision:
                        self._nudge.set()
                    await self._changed.wait()
        return self._state.snapshot

    async def wait_for_change(self, version: int) -> int:
        """Wait until there was another swap than the one numbered `version`; gives its number."""
        async with self._changed:
            while self.version == version:
                await self._changed.wait()
            return self.version

    def proven(self, served: ServedModel) -> None:
        """A model that a change has opened already: it need not be opened again. `forget_proven` ends that."""
        self._proven[served.model_id, served.predictor.digest] = served

    def forget_proven(self, served: ServedModel) -> None:
        """The change is over."""
        self._proven.pop((served.model_id, served.predictor.digest), None)

    def _look(self, signature: Hashable, models: Mapping[Key, ServedModel], *, always: bool) -> _Seen | None:
        """What the registry wants now, in a thread; None where nothing was changed."""
        now = self._store.signature()
        if now == signature and not always:
            return None
        self._store.check()
        view = self._store.view(wait=True)
        if view.edited_outside and view.state.revision and not view.alarm:
            self._record()
            now = self._store.signature()
            view = self._store.view()
        else:
            self._vain_looks = 0
            self._unrecorded = ""
        self.index_asked, self.log_went_back = bool(view.asked), bool(view.alarm)
        self.seen_revision = view.state.revision
        wanted = wanted_of(view, self._choice)
        kept: dict[Key, ServedModel] = {}
        new: list[Key] = []
        for key in wanted.models:
            served = models.get(key)
            if served is not None and wanted.fits(key, served):
                kept[key] = served.with_pin(pinned=key in wanted.pinned)
            else:
                new.append(key)
        return _Seen(now, wanted, kept, new)

    def _record(self) -> None:
        """Have an edit by hand get its event; where that can't be, try again with the next look."""
        try:
            self._record_edits()
        except (RegistryError, OSError) as error:
            self._vain_looks += 1
            # another worker may be at it
            if self._vain_looks == _VAIN_LOOKS:
                self._unrecorded = str(error)
                _log.warning("registry.edit_not_recorded", why=self._unrecorded)
        else:
            self._vain_looks = 0
            self._unrecorded = ""

    def _take(self, seen: _Seen) -> None:
        """Serve what is loaded, and begin to load what is not."""
        wanted, before, last = seen.wanted, self._models, self._wanted
        behind = self._not_current | self._pending
        self._signature, self._wanted = seen.signature, wanted
        self._models = seen.kept
        failures, self._failures, self._pending, self._retries = self._failures, {}, {}, {}
        not_current, self._not_current = self._not_current, {}
        for key in seen.new:
            if (earlier := before.get(key)) is not None:
                self._models[key] = earlier
            served = self._at_hand(wanted, key, earlier)
            if served is not None:
                self._models[key] = served
                continue
            entry = wanted.models[key]
            # what the key answers with was its model up to the last look, or up to where it fell behind
            of = behind[key].revision if key in behind else last.revision if last is not None else -1
            failure = failures.get(key)
            if failure is not None and failure.model_id == entry.model_id:
                self._failures[key] = replace(failure, revision=wanted.revision)
                self._not_current[key] = Behind(entry.model_id, of)
            else:
                self._pending[key] = Behind(entry.model_id, of)
                if key in not_current:
                    self._not_current[key] = Behind(entry.model_id, of)
            self._begin(wanted, key)
        self._named.forget(
            lambda served: (
                served.model_id in wanted.known_ids
                and wanted.digests.get(served.model_id, "") == served.predictor.digest
            )
        )
        self._news.set()

    def _at_hand(self, wanted: Wanted, key: Key, earlier: ServedModel | None) -> ServedModel | None:
        """The key's model, where something has loaded it already: this watcher, a request, a promote."""
        model_id = wanted.models[key].model_id
        proven = self._proven.get((model_id, wanted.digests.get(model_id, "")))
        for served in (earlier, proven, self._named.get(model_id)):
            if served is not None and wanted.fits(key, served):
                return served.with_pin(pinned=key in wanted.pinned)
        return None

    def _begin(self, wanted: Wanted, key: Key) -> None:
        entry = wanted.models[key]
        digest = wanted.digests.get(entry.model_id, "")
        name = (key, entry.model_id, digest)
        if name not in self._loads:
            why = wanted.not_servable.get(entry.model_id, "")
            task = asyncio.create_task(self._load(key, entry, digest, why), name=f"load {entry.model_id}")
            self._loads[name] = task
            task.add_done_callback(lambda _: self._loads.pop(name, None))

    async def _load(self, key: Key, entry: ModelRegistryEntry, digest: str, not_servable: str) -> None:
        """Load a key's model and have it served, unless something else is wanted by then."""
        failure: Exception | None = None
        served: ServedModel | None = None
        try:
            served = await self._loading.load(
                (entry.model_id, digest), partial(self._loader.open, entry, digest, not_servable)
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, the old model goes on serving
            failure = error
        wanted = self._wanted
        now = wanted.models.get(key) if wanted is not None else None
        if wanted is None or now is None or now.model_id != entry.model_id:
            return
        if wanted.digests.get(entry.model_id, "") != digest:
            return
        was = self._pending.pop(key, None)
        if served is not None:
            self._models[key] = served.with_pin(pinned=key in wanted.pinned)
            self._failures.pop(key, None)
            self._not_current.pop(key, None)
            self._retries.pop(key, None)
        elif failure is not None:
            if was is not None:
                self._not_current[key] = was
            self._fail(key, entry.model_id, failure, wanted.revision)
        self._news.set()

    def _fail(self, key: Key, model_id: str, error: Exception, revision: int) -> None:
        if not isinstance(error, RegistryError | LoadTimeoutError):
            _log.error("model.load_crashed", model_id=model_id, exc_info=error)
        failure = LoadFailure(key, model_id, str(error) or type(error).__name__, revision)
        before = self._failures.get(key)
        if before is None or before.message != failure.message:  # a retry repeats no log line
            _log.warning("model.load_failed", key=str(key), model_id=model_id, why=failure.message)
        self._failures[key] = failure
        last = self._retries.get(key)
        pause = _FIRST_RETRY if last is None else min(last.pause * 2, _LONGEST_RETRY)
        hangs = error.ended if isinstance(error, LoadTimeoutError) else None
        self._retries[key] = _Retry(time.monotonic() + pause, pause, hangs)
        if hangs is not None and (last is None or last.hangs is not hangs):
            hangs.add_done_callback(lambda _: self._retry_now(key, model_id))

    def _retry_failed(self) -> None:
        now = time.monotonic()
        for key, retry in list(self._retries.items()):
            if retry.due <= now:
                self._retry_now(key, self._failures[key].model_id)

    def _retry_now(self, key: Key, model_id: str) -> None:
        failure = self._failures.get(key)
        if failure is not None and failure.model_id == model_id and self._wanted is not None:
            self._begin(self._wanted, key)

    async def _say(self, trouble: str) -> None:
        if trouble == self.trouble:
            return
        if trouble:
            _log.error("registry.unreadable", why=trouble)
        else:
            _log.info("registry.readable_again", revision=self.seen_revision)
        self.trouble = trouble
        await self.tell()

    async def _say_turn(self, *, awaited: bool) -> None:
        if awaited == self._turn_awaited:
            return
        if awaited:
            _log.warning("registry.lock_awaited", registry=self._store.location, seconds=_LONG_TURN_SECONDS)
        else:
            _log.info("registry.lock_free", registry=self._store.location)
        self._turn_awaited = awaited
        await self.tell()

    async def _publish(self) -> None:
        """Swap a new snapshot in whenever there is something new."""
        while True:
            await self._news.wait()
            self._news.clear()
            began = time.monotonic()
            try:
                await self._swap()
            except Exception as error:  # noqa: BLE001 - as in `run`
                _log.error("watcher.crashed", exc_info=error)
            if self._loads:
                await asyncio.sleep(_PAUSE_FACTOR * (time.monotonic() - began))

    async def _swap(self) -> None:
        if self._wanted is None:
            return
        previous = self._state.snapshot
        self._started = self._started or not self._pending
        build = partial(
            snapshot_of,
            self._wanted,
            dict(self._models),
            dict(self._failures),
            dict(self._pending),
            dict(self._not_current),
            started=self._started,
            strict=self._strict,
        )
        snapshot, swapped = await self._building.run(_with_changes, build, previous)
        if snapshot is previous:
            return  # a retry that changed nothing is no news to those who watch
        self._state.snapshot = snapshot
        for text in snapshot.warnings:
            if text not in previous.warnings:
                _log.warning("registry.warning", why=text)
        for problem in self._wanted.problems:
            if problem.message not in {failure.message for failure in previous.failures}:
                _log.warning(
                    "model.load_failed", key=str(problem.key), model_id=problem.model_id, why=problem.message
                )
        for key, before, after in swapped:
            _log.info("model.swapped", key=str(key), before=before, after=after, revision=snapshot.revision)
            self._count_swap()
        await self.tell()

    async def tell(self) -> None:
        """Let those who watch know that the status says something else."""
        async with self._changed:
            self.version += 1
            self._changed.notify_all()


def reaches(snapshot: ServingSnapshot, revision: int, keys: Collection[Key]) -> bool:
    """Whether a revision, or a later one, is served, or will not be: of the keys, where any are named."""
    return snapshot.revision >= revision and all(
        snapshot.revision_of(key) >= revision or key not in snapshot.pending for key in keys
    )


def _name(served: ServedModel | None) -> str | None:
    return served.model_id if served is not None else None


def _with_changes(
    build: Callable[[], ServingSnapshot], previous: ServingSnapshot
) -> tuple[ServingSnapshot, list[tuple[Key, str | None, str | None]]]:
    """A new snapshot, the previous one where nothing is new, and the keys whose model is another one."""
    snapshot = build()
    if snapshot == previous:
        return previous, []
    swapped = []
    for key in {*previous.by_key, *snapshot.by_key}:
        before, after = _name(previous.by_key.get(key)), _name(snapshot.by_key.get(key))
        if before != after:
            swapped.append((key, before, after))
    return snapshot, swapped
