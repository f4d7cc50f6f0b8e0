"""A listing that comes in pages, and what is left of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Generic, TypeVar

from ..v1.registry_pb2 import ListEventsRequest, ListEventsResponse, ListModelsRequest, ListModelsResponse
from .call import Call

Q = TypeVar("Q", ListModelsRequest, ListEventsRequest)
P = TypeVar("P", ListModelsResponse, ListEventsResponse)
V = TypeVar("V")


class Pages(Generic[Q, P, V]):
    """Make `call` and `take` its answer, again while there are `more`; at most `limit` values come of it."""

    def __init__(
        self, call: Call[Q, P, P], values: Callable[[P], Iterator[V]], limit: int | None = None
    ) -> None:
        self.call: Call[Q, P, P] = call
        self.more = True
        """Whether there is another page to ask for; `call` asks for it."""
        self._values: Callable[[P], Iterator[V]] = values
        self._left = limit

    def take(self, page: P) -> Iterator[V]:
        """Return the values of a page, and set `call` on the next one."""
        count = len(page.models if isinstance(page, ListModelsResponse) else page.events)
        if self._left is not None:
            count = min(count, self._left)
            self._left -= count
        self.call.request.page_token = page.next_page_token
        self.more = bool(page.next_page_token) and self._left != 0
        return islice(self._values(page), count)
