"""The registry as a running server has it: what may be asked of it, whichever protocol asks.

1. All disk work is done in worker threads; changes, which may wait for the lock, have others than reads.
2. A change is answered once every worker serves it, or when its time is nearly up; the answer says which revision is
   served, and which workers lag. A key whose new model can't be loaded still serves what it served before.
3. A promote or rollback opens, proves and warms its models here, before anything is committed; what it has opened is
   served as it is, and not opened again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, NamedTuple, TypeVar

from signalserve.common.key import Key
from signalserve.registry import (
    Committed,
    Description,
    ModelMetadata,
    ModelRegistryEntry,
    Promotion,
    Registry,
)
from signalserve.registry.artefact import Artefact
from signalserve.registry.errors import ArtefactError
from signalserve.registry.events import Event
from signalserve.registry.plans import entry_of
from signalserve.registry.proving import Prove
from signalserve.registry.queries import select
from signalserve.registry.store import Origin, View
from signalserve.server.deadline import until
from signalserve.server.errors import LateError, LoadTimeoutError
from signalserve.server.loader import Loader
from signalserve.server.loading import Loading
from signalserve.server.named import NamedModels
from signalserve.server.peers import Lagging, Peers, lagging, report_of
from signalserve.server.snapshot import ServedModel, ServingSnapshot, ServingState
from signalserve.server.threads import Threads
from signalserve.server.watcher import RegistryWatcher

# changes wait for the registry's lock, one after the other; more of them at once would be none the faster
_CHANGES, _READS, _PROOFS = 8, 4, 2
_TIME_TO_ANSWER = 0.2

T = TypeVar("T")


class Outcome(NamedTuple):
    """What a change committed, the revision that this server serves by now, and which workers do not serve it."""

    committed: Committed
    served_revision: int
    lagging: Sequence[Lagging] = ()


class _Change(NamedTuple):
    """How a change proves models, as this server would serve them, and what is asked before it is committed."""

    prove: Prove
    before_commit: Callable[[], None]


class Listed(NamedTuple):
    """An entry of the index, what its files are, and what else is known of its model."""

    entry: ModelRegistryEntry
    description: Description
    served: bool
    quarantined: bool


class Listing(NamedTuple):
    """All entries that pass a filter, newest first, as of one view; `page` looks at the files of some."""

    entries: Sequence[ModelRegistryEntry]
    unreadable: Sequence[str]
    page: Callable[[slice], list[Listed]]


@dataclass(frozen=True)
class Details:
    """One model with its metadata and importances; `meta` is None where `problem` says why.

    `columns` and `feature_set` are the model's own, from the manifest where it has one: an edited meta.json names no
    others.
    """

    listed: Listed
    meta: ModelMetadata | None = None
    metadata_json: str = ""
    importances: Sequence[tuple[str, float]] = ()
    problem: str = ""
    columns: Sequence[str] = ()
    feature_set: str = ""


class RegistryCalls:
    """Reads and changes of one server."""

    def __init__(
        self,
        registry: Registry,
        state: ServingState,
        named: NamedModels,
        watcher: RegistryWatcher,
        loader: Loader,
        peers: Peers | None,
        load_seconds: float,
    ) -> None:
        """`peers` are the other workers; `load_seconds` is how long it may take to open a model for production."""
        self._registry = registry
        self._state = state
        self._named = named
        self._watcher = watcher
        self._loader = loader
        self._peers = peers
        self._opening = Loading(Threads("model-prove", _PROOFS), load_seconds)
        self._changing = Threads("registry-change", _CHANGES)
        self._reading = Threads("registry-read", _READS)

    async def read(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run what blocks, a listing say, in a thread that no change takes."""
        return await self._reading.run(work, *arguments)

    def close(self) -> None:
        """Let the threads go."""
        self._opening.close()
        self._changing.close()
        self._reading.close()

    async def promote(
        self, promotions: Sequence[Promotion], origin: Origin, remaining: float | None, *, force: bool
    ) -> Outcome:
        """Promote; `remaining` is the time left in seconds, None for no limit.

        Raises:
            RegistryError: as `Registry.promote` says; nothing changed.
        """
        moment = until(remaining, _TIME_TO_ANSWER)
        with self._changing_for_caller() as change:
            committed = await self._changing.run(
                self._registry.promote, promotions, force=force, **change._asdict(), **asdict(origin)
            )
            return await self._outcome(committed, moment)

    async def rollback(
        self, keys: Sequence[Key], expected: Sequence[str], origin: Origin, remaining: float | None
    ) -> Outcome:
        """Roll back; `expected` is what must be in production of each key, empty for anything.

        Raises:
            RegistryError: as `Registry.rollback` says; nothing changed.
        """
        moment = until(remaining, _TIME_TO_ANSWER)
        with self._changing_for_caller() as change:
            committed = await self._changing.run(
                self._registry.rollback, keys, expected=expected, **change._asdict(), **asdict(origin)
            )
            return await self._outcome(committed, moment)

    async def archive(
        self, model_ids: Sequence[str], origin: Origin, remaining: float | None, *, allow_unserved: bool
    ) -> Outcome:
        """Archive.

        Raises:
            RegistryError: as `Registry.archive` says; nothing changed.
        """
        moment = until(remaining, _TIME_TO_ANSWER)
        with self._changing_for_caller() as change:
            committed = await self._changing.run(
                self._registry.archive,
                model_ids,
                allow_unserved=allow_unserved,
                before_commit=change.before_commit,
                **asdict(origin),
            )
            return await self._outcome(committed, moment)

    def listing(self, **filters: Any) -> Listing:
        """The models that pass the filters of `registry.queries.select`; blocks.

        Raises:
            StorageError: the registry can't be read.
        """
        view = self._registry.view()
        entries = select(view.state, **filters)
        unreadable = [str(row) for row in view.unreadable]
        return Listing(entries, unreadable, lambda which: self._listed(view, entries[which]))

    def details(self, model_id: str) -> Details:
        """One model; blocks.

        Raises:
            UnknownModelError, StorageError: there is none, or the registry can't be read.
        """
        view = self._registry.view()
        (listed,) = self._listed(view, [entry_of(view.state, model_id)])
        artefact = self._registry.artefact_of(view.state, model_id)
        known = Details(listed, feature_set=artefact.feature_set())
        try:
            known = replace(known, columns=artefact.columns())
            return replace(
                known,
                meta=artefact.meta(),
                metadata_json=artefact.meta_text(),
                importances=artefact.importances(),
            )
        except ArtefactError as error:
            return replace(known, problem=str(error))

    def events(self, symbol: str = "", timeframe: str = "", model_id: str = "") -> list[Event]:
        """The events about what is named, all where nothing is, newest first; blocks.

        Raises:
            StorageError: the log can't be read.
        """
        events = reversed(self._registry.events())
        return [event for event in events if event.is_about(symbol, timeframe, model_id)]

    def _listed(self, view: View, entries: Sequence[ModelRegistryEntry]) -> list[Listed]:
        named, serving = self._named.loaded(), self._state.snapshot.by_key
        found = self._registry.descriptions(view, entries)
        return [
            Listed(
                entry,
                description,
                served=entry.model_id in named
                or ((model := serving.get(entry.key)) is not None and model.model_id == entry.model_id),
                quarantined=entry.model_id in view.state.quarantined,
            )
            for entry, description in zip(entries, found, strict=True)
        ]

    @contextmanager
    def _changing_for_caller(self) -> Iterator[_Change]:
        """A change for a caller who may go before it is made: it is not made then."""
        loop = asyncio.get_running_loop()
        mine: list[ServedModel] = []
        over = False

        async def opened(artefact: Artefact) -> None:
            name = (artefact.entry.model_id, artefact.digest)
            served = await self._opening.load(name, partial(self._loader.prove, artefact))
            if not over:  # else the caller has gone, and the thread that works for it goes on
                mine.append(served)
                self._watcher.proven(served)

        def prove(artefact: Artefact) -> None:
            try:
                asyncio.run_coroutine_threadsafe(opened(artefact), loop).result()
            except LoadTimeoutError as error:  # no word against the model: the disk may be slow
                raise LoadTimeoutError("LOADING", f"{artefact.entry.model_id}: {error}") from error

        def before_commit() -> None:
            if over:
                raise LateError("CALLER_GONE", "who asked for the change has gone; nothing was changed")

        try:
            yield _Change(prove, before_commit)
        finally:
            over = True
            for served in mine:
                self._watcher.forget_proven(served)

    async def _outcome(self, committed: Committed, moment: float | None) -> Outcome:
        """What was committed, once every worker serves it or the moment has come."""
        keys = {Key(item.symbol, item.timeframe) for item in committed.transitions}
        if self._peers is not None:
            self._peers.announce(committed.revision)
        snapshot = await self._watcher.wait_for_revision(committed.revision, moment, keys)
        late: list[Lagging] = []
        worker = 0 if self._peers is None else self._peers.worker
        mine = lagging(report_of(worker, snapshot, snapshot.revision), committed.revision, keys)
        if mine is not None:
            late.append(mine)
        if self._peers is not None:
            late += await self._peers.wait_for(committed.revision, keys, moment)
        return Outcome(committed, _served_revision(snapshot, committed), late)


def _served_revision(snapshot: ServingSnapshot, committed: Committed) -> int:
    failed = {failure.key for failure in snapshot.failures}
    keys = [Key(item.symbol, item.timeframe) for item in committed.transitions]
    if any(key in failed for key in keys):
        return max(0, min(snapshot.revision, committed.revision - 1))
    return max(0, min([snapshot.revision, *(snapshot.revision_of(key) for key in keys)]))
