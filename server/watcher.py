"""Follows the registry: sees a change, has the next snapshot built, swaps it in.

1. The store's signature (`stat` of the log and the index) every `server.poll_ms`; no inotify, since registries
   live on NFS too.
2. All blocking work is done in a worker thread; the event loop only assigns the new snapshot.
3. A model that failed to load is tried again every few seconds, and at each change.
4. A registry that can't be read, or has gone, leaves the present snapshot serving; `trouble` says so until it is back.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable
from contextlib import suppress

import structlog

from signalserve.registry.errors import RegistryError
from signalserve.registry.store import Store
from signalserve.server.loader import Loader
from signalserve.server.named import NamedModels
from signalserve.server.snapshot import ServedModel, ServingSnapshot, ServingState
from signalserve.server.threads import Threads

_RETRY_SECONDS = 5.0
_LONGEST_WAIT = 60.0

_log = structlog.get_logger("server")


class RegistryWatcher:
    """Keeps a `ServingState` at the registry's newest revision."""

    def __init__(
        self,
        store: Store,
        loader: Loader,
        state: ServingState,
        named: NamedModels,
        poll_seconds: float,
        count_swap: Callable[[], None],
    ) -> None:
        self._store = store
        self._loader = loader
        self._state = state
        self._named = named
        self._count_swap = count_swap
        self._poll_seconds = poll_seconds
        self._seen: Hashable = None
        self._threads = Threads("registry-follow", 1)
        self.trouble = ""
        self._tried = 0.0
        self._nudge = asyncio.Event()
        self._changed = asyncio.Condition()
        self.seen_revision = 0
        self.version = 0

    async def refresh(self) -> None:
        """Look at the registry now; returns once what was there is served, or known to be unservable."""
        signature = await self._threads.run(self._store.signature)
        retry = bool(self._state.snapshot.failures) and time.monotonic() - self._tried > _RETRY_SECONDS
        if signature == self._seen and not retry and not self.trouble:
            return
        self._tried = time.monotonic()
        try:
            snapshot = await self._threads.run(self._build)
        except RegistryError as error:
            if str(error) != self.trouble:
                _log.error("registry.unreadable", why=str(error))
                await self._say(str(error))
            return
        if self.trouble:
            _log.info("registry.readable_again", revision=snapshot.revision)
            await self._say("")
        self._seen = signature
        await self._swap(snapshot)

    async def run(self) -> None:
        """Follow the registry until cancelled; the only caller of `refresh`, so that swaps keep their order."""
        try:
            while True:
                try:
                    await self.refresh()
                except Exception as error:  # noqa: BLE001 - the watcher must outlive a bug
                    _log.error("watcher.crashed", exc_info=error)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._nudge.wait(), self._poll_seconds)
                self._nudge.clear()
        finally:
            self._threads.close()

    async def wait_for_revision(
        self, revision: int, remaining: float | None, spare: float
    ) -> ServingSnapshot:
        """The snapshot once it was built from `revision` or a later one; the present one when time is up.

        Of the `remaining` seconds (None: no deadline) `spare` are left for what comes after; it is never long.
        """
        seconds = _LONGEST_WAIT if remaining is None else min(_LONGEST_WAIT, max(0.0, remaining - spare))
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds), self._changed:
                while self._state.snapshot.revision < revision:
                    self._nudge.set()
                    await self._changed.wait()
        return self._state.snapshot

    async def wait_for_change(self, version: int) -> int:
        """Wait until there was another swap than the one numbered `version`; gives its number."""
        async with self._changed:
            while self.version == version:
                await self._changed.wait()
            return self.version

    async def _say(self, trouble: str) -> None:
        self.trouble = trouble
        async with self._changed:
            self.version += 1
            self._changed.notify_all()

    def _build(self) -> ServingSnapshot:
        self._store.check()
        view = self._store.view(wait=True)
        self.seen_revision = view.state.revision
        snapshot = self._loader.build(view, self._state.snapshot)
        digests = view.state.digests
        self._named.forget(
            lambda served: (
                served.model_id in snapshot.known_ids
                and digests.get(served.model_id, "") == served.predictor.digest
            )
        )
        return snapshot

    async def _swap(self, snapshot: ServingSnapshot) -> None:
        previous = self._state.snapshot
        if snapshot == previous:
            return  # a retry that changed nothing is no news to those who watch
        self._state.snapshot = snapshot
        self._tell_changes(previous, snapshot)
        async with self._changed:
            self.version += 1
            self._changed.notify_all()

    def _tell_changes(self, previous: ServingSnapshot, snapshot: ServingSnapshot) -> None:
        for text in snapshot.warnings:
            if text not in previous.warnings:
                _log.warning("registry.warning", why=text)
        for key in {*previous.by_key, *snapshot.by_key}:
            old, new = previous.by_key.get(key), snapshot.by_key.get(key)
            if old is new:
                continue
            before, after = _name(old), _name(new)
            if before != after:
                _log.info(
                    "model.swapped", key=str(key), before=before, after=after, revision=snapshot.revision
                )
                self._count_swap()


def _name(served: ServedModel | None) -> str | None:
    return served.model_id if served is not None else None
