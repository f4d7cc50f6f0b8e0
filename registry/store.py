"""What a registry is kept in: a state, the events that made it, and a way to add one more.

The folder (`registry.folder_store`) is the first form. Another one keeps these rules:

1. The events are the truth. A commit is durable when it returns, or it did not happen.
2. `view` changes nothing and waits for no writer; what it gives stays as it is.
3. One transaction at a time: the state of a `Transaction` is the one that its commit builds on.
4. `signature` differs whenever there may be something new to see, and costs next to nothing.
5. Where there is none, or it has gone, is an error for readers and writers, and no empty registry; `make` alone makes
   one, and never in the place of one that has gone.
"""

from __future__ import annotations

import getpass
import os
import platform
from collections.abc import Hashable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from signalserve.common.key import Key
from signalserve.registry.events import Event, StatusChange
from signalserve.registry.index import UnreadableRow
from signalserve.registry.state import RegistryState

# how long a writer waits for its turn
LOCK_SECONDS = 60.0


@dataclass(frozen=True)
class Draft:
    """A change that was decided but not committed."""

    action: str
    changes: tuple[StatusChange, ...] = ()
    detail: Mapping[str, Any] = field(default_factory=dict)
    evidence: Mapping[str, Any] | None = None
    forced: bool = False


@dataclass(frozen=True)
class Origin:
    """Who asks for a change, by which way and why; an empty `actor` is this process's user."""

    actor: str = ""
    via: str = "python"
    reason: str = ""
    request_id: str = ""


@dataclass(frozen=True)
class View:
    """What a reader sees: a state, and what is odd about the index file and the log.

    `asked` is why the index is not followed, empty where it is; `legible` whether any row of it can be read.
    `remarks` are for people: rows that will be written back, an edit that began with an old copy. `alarm` says that
    the log no longer holds what was read from it.
    """

    state: RegistryState
    unreadable: tuple[UnreadableRow, ...] = ()
    edited_outside: bool = False
    asked: str = ""
    legible: bool = True
    remarks: tuple[str, ...] = ()
    alarm: str = ""

    @property
    def not_followed(self) -> str:
        """Why the index is not followed, and the way out; empty where it is."""
        if not self.asked:
            return ""
        if self.legible:
            way = (
                "`signalserve registry accept-index` shows what it would change and takes it, any other change keeps "
                "it aside"
            )
        else:
            way = "put a copy of it back, or make any change: it is kept aside then, and written anew from the log"
        return f"the index is not followed: {self.asked}; {way}"

    @property
    def warnings(self) -> tuple[str, ...]:
        """All that a person should look at."""
        return (*filter(None, (self.alarm, self.not_followed)), *self.remarks)


@dataclass(frozen=True)
class KeptIndex:
    """An index file that may be accepted: where it lies, of when it is, and its bytes."""

    path: Path
    moment: datetime
    content: bytes = field(repr=False)


@dataclass(frozen=True)
class Acceptance:
    """What taking an index as a decision would do, and the content of the event that records it.

    `productions`: key -> the model in production before and after, None for none, where they differ. `confirmed`:
    key -> what was decided and what the index has, where these differ; of no other key it decides. `respelt` are
    models of which other cells than the status change, `left_out` new ones whose folder is not there, `stays` those
    that the index has no row of and that stay; `unreadable` are the rows that stay as they are.
    """

    recorded: Draft
    productions: Mapping[Key, tuple[str | None, str | None]]
    confirmed: Mapping[Key, tuple[str | None, str | None]] = field(default_factory=dict)
    respelt: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    stays: tuple[str, ...] = ()
    unreadable: tuple[UnreadableRow, ...] = ()

    @property
    def changes(self) -> bool:
        """Whether it would change anything."""
        detail = self.recorded.detail
        return bool(self.recorded.changes or self.confirmed or detail["entries"] or "raw_rows" in detail)


class Transaction(Protocol):
    """A writer's turn."""

    origin: Origin

    @property
    def state(self) -> RegistryState:
        """The state that the next commit builds on."""

    def commit(self, draft: Draft, *, follows: bool = False) -> Event:
        """Make a change durable; it is committed when this returns.

        `follows`: it is a consequence of the change that was asked for, so a retry's answer is not in it.

        Raises:
            StorageError: nothing was committed.
        """


class Store(Protocol):
    """One registry's events and state. Safe to share between threads."""

    @property
    def location(self) -> str:
        """Where it is kept, for people."""

    def check(self) -> None:
        """See that there is a registry, be it an empty one.

        Raises:
            RegistryMissingError: there is none, or it has gone.
        """

    def exists(self) -> bool:
        """Whether there is a registry, be it an empty one.

        Raises:
            RegistryGoneError: it was there before.
        """

    def make(self) -> bool:
        """Make an empty registry where there is none, and say whether that was needed.

        Raises:
            RegistryGoneError: it was there before, and shall come back.
            StorageError: it can't be made.
        """

    def view(self, *, wait: bool = False) -> View:
        """The present state. With `wait`, an edit that someone is in the midst of is waited for, some seconds.

        Raises:
            RegistryMissingError: there is none, or it has gone.
            StorageError: it can't be read.
        """

    def events(self, since: int = 0) -> Sequence[Event]:
        """The events of the revisions after `since`, oldest first.

        Raises:
            RegistryMissingError: there is none, or it has gone.
            StorageError: they can't be read.
        """

    def signature(self) -> Hashable:
        """A value that says "changed" when it differs from the one before; never raises."""

    def awaited(self) -> float:
        """Seconds for which a writer of this process has been waiting for its turn now; 0.0 where none is."""

    def asked_about(self) -> KeptIndex | None:
        """The index that is asked about, or else the one that was kept aside last; None for none.

        Raises:
            RegistryMissingError, StorageError: as for `view`, or it can't be read.
        """

    def plan_acceptance(self, content: bytes) -> Acceptance:
        """What `accept` would do with an index now.

        Raises:
            InvalidArgumentError: none of its rows can be read.
            ArtefactError: a model would go into production whose folder is not there.
            RegistryMissingError, StorageError: as for `view`.
        """

    def accept(self, content: bytes, origin: Origin, *, shown: Acceptance | None = None) -> Event | None:
        """Take an index as it is, as a decision: None where it changes nothing.

        Raises:
            InvalidArgumentError, ArtefactError: as for `plan_acceptance`.
            PreconditionError: it would no longer do what was `shown`.
            RegistryMissingError, RegistryBusyError, StorageError: as for `transaction`.
        """

    def transaction(
        self, origin: Origin, seconds: float = LOCK_SECONDS
    ) -> AbstractContextManager[Transaction]:
        """Be the one writer for the length of the block, after at most so many seconds.

        Raises:
            RegistryMissingError: there is none, or it has gone.
            RegistryBusyError: another writer has its turn for too long.
            StorageError: nothing can be written.
        """


def default_actor() -> str:
    """`local:1000(alice)@host`: this process's user by its id, whatever LOGNAME and the like say."""
    try:
        import pwd  # not everywhere

        user = f"{os.getuid()}({pwd.getpwuid(os.getuid()).pw_name})"
    except KeyError:  # a container's user may have no name
        user = str(os.getuid())
    except ImportError:
        user = getpass.getuser()
    return f"local:{user}@{platform.node() or 'localhost'}"
