"""A registry that may not have been made yet, for readers that begin before the first model is registered."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager

from signalserve.registry.events import Event
from signalserve.registry.state import RegistryState
from signalserve.registry.store import LOCK_SECONDS, Acceptance, KeptIndex, Origin, Store, Transaction, View


class EmptyUntilMade:
    """A store that reads as empty where there never was a registry. One that has gone stays an error."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @property
    def location(self) -> str:
        """See `Store`; so for all that follow."""
        return self._store.location

    def check(self) -> None:
        """See that there is a registry."""
        self._store.check()

    def exists(self) -> bool:
        """Whether there is one."""
        return self._store.exists()

    def make(self) -> bool:
        """Make one where there is none."""
        return self._store.make()

    def view(self, *, wait: bool = False) -> View:
        """The present state; an empty one where there is no registry yet."""
        return self._store.view(wait=wait) if self._store.exists() else View(RegistryState())

    def events(self, since: int = 0) -> Sequence[Event]:
        """The events after a revision; none where there is no registry yet."""
        return self._store.events(since) if self._store.exists() else ()

    def signature(self) -> Hashable:
        """What differs whenever there may be something new."""
        return self._store.signature()

    def awaited(self) -> float:
        """Seconds for which a writer of this process has been waiting."""
        return self._store.awaited()

    def asked_about(self) -> KeptIndex | None:
        """The index that is asked about."""
        return self._store.asked_about()

    def plan_acceptance(self, content: bytes) -> Acceptance:
        """What taking an index would do."""
        return self._store.plan_acceptance(content)

    def accept(self, content: bytes, origin: Origin, *, shown: Acceptance | None = None) -> Event | None:
        """Take an index as a decision."""
        return self._store.accept(content, origin, shown=shown)

    def transaction(
        self, origin: Origin, seconds: float = LOCK_SECONDS
    ) -> AbstractContextManager[Transaction]:
        """Be the one writer."""
        return self._store.transaction(origin, seconds)
