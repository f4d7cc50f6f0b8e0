"""Every server that the lab knows of, and every process behind each."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from signalserve.lab.server import ServerLink, ServerState


@dataclass(frozen=True)
class FleetState:
    """What each process says of itself, by server; a server that is away has one state that says so."""

    processes: tuple[ServerState, ...]

    @property
    def differ(self) -> bool:
        """Whether two of them serve different models, or different revisions."""
        return len({(item.revision, item.models) for item in self.processes if item.answers}) > 1


class Fleet:
    """The servers.

    Args:
        links: the way to each, that of `client.target` first.
    """

    def __init__(self, links: Sequence[ServerLink]) -> None:
        self._links = tuple(links)

    def look(self, token: str = "") -> FleetState:
        """Ask all of them, with a user's token; raises nothing."""
        with ThreadPoolExecutor(len(self._links)) as each:
            found = each.map(lambda link: link.processes(token), self._links)
            return FleetState(tuple(state for states in found for state in states))

    def close(self) -> None:
        """End the connections."""
        for link in self._links:
            link.close()
