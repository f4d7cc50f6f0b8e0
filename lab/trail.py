"""The audit log in memory, read on from where the last look ended.

1. What is kept is keyed by the store's signature; the store is asked for nothing while that stands.
2. Events that follow the last one are added; anything else (a log that was replaced) is read anew from its start.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

from signalserve.registry.events import Event
from signalserve.registry.store import Store

V = TypeVar("V")


class Trail:
    """The events of one registry, oldest first. Safe to share between threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._signature: Hashable = None
        self._events: tuple[Event, ...] = ()
        self._folds: dict[Callable[..., Any], tuple[tuple[Event, ...], Any]] = {}

    def events(self) -> tuple[Event, ...]:
        """All of them.

        Raises:
            StorageError: the log can't be read, or is no whole chain.
        """
        with self._lock:
            signature = self._store.signature()  # before the look: what comes meanwhile is seen next time
            if signature == self._signature:
                return self._events
            self._events = self._read_on(self._events)
            self._signature = signature
            return self._events

    def folded(self, fold: Callable[[Sequence[Event]], V]) -> V:
        """What a function of all events gives; made once a log. Treat it as read-only.

        Raises:
            StorageError: as for `events`.
        """
        events = self.events()
        kept = self._folds.get(fold)
        if kept is None or kept[0] is not events:
            kept = self._folds[fold] = (events, fold(events))
        value: V = kept[1]
        return value

    def _read_on(self, known: tuple[Event, ...]) -> tuple[Event, ...]:
        if known:
            last = known[-1]
            found = tuple(self._store.events(last.revision - 1))
            if found and found[0].hash == last.hash:
                return known + found[1:]
        return tuple(self._store.events())
