"""What a registry is kept in: a state, the events that made it, and a way to add one more.

The folder (`registry.folder_store`) is the first form. Another one keeps these rules:

1. The events are the truth. A commit is durable when it returns, or it did not happen.
2. `view` changes nothing, and waits for no writer's turn, at most for one commit of it; what it gives stays as it is.
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
from typing import Any, Protocol

from signalserve.registry.events import Event, StatusChange
from signalserve.registry.index import UnreadableRow
from signalserve.registry.state import RegistryState


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
    """What a reader sees: a state, and what is wrong with the index file."""

    state: RegistryState
    unreadable: tuple[UnreadableRow, ...] = ()
    edited_outside: bool = False


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

    def transaction(self, origin: Origin) -> AbstractContextManager[Transaction]:
        """Be the one writer for the length of the block.

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
