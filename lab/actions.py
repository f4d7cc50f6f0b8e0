"""Promote, rollback and archive, done by the gRPC server with the caller's own token.

The lab decides nothing and writes nothing: what the server refuses is refused, with its reason and its numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import BoundedSemaphore

from signalserve.client import PromoteResult, Promotion, ResourceExhausted, SignalClient
from signalserve.lab.identity import User
from signalserve.lab.plain import text_of
from signalserve.lab.server import ServerLink


@dataclass(frozen=True)
class Transition:
    """What was done to one model; `previous_model_id` was in production of its key before, empty for none."""

    symbol: str
    timeframe: str
    model_id: str
    previous_model_id: str


@dataclass(frozen=True)
class Done:
    """What was committed, all in one revision. `served`: the server that answered serves it already."""

    action: str
    transitions: tuple[Transition, ...]
    registry_revision: int
    served_revision: int
    served: bool
    request_id: str


# so that a server that hangs takes only so many of the threads that pages need
_MOST_AT_ONCE = 8
_AT_ONCE = BoundedSemaphore(_MOST_AT_ONCE)


class Actions:
    """Changes through one server. Each raises `client.SignalServeError` as the server refuses, or is away."""

    def __init__(self, server: ServerLink) -> None:
        self._server = server

    def promote(
        self,
        promotions: Sequence[tuple[str, str | None]],
        user: User,
        *,
        reason: str = "",
        force: bool = False,
        request_id: str | None = None,
    ) -> Done:
        """Put models into production, all or none; each with the model that must be there now (None: any, "": none).

        Raises:
            SignalServeError, ValueError: nothing was changed, or the answer was lost.
        """
        with self._client(user) as client:
            items = [Promotion(model_id, expected) for model_id, expected in promotions]
            result = client.promote(items, reason=reason, force=force, request_id=request_id)
        return _done("promote", result)

    def rollback(
        self,
        keys: Sequence[tuple[str, str]],
        user: User,
        *,
        reason: str,
        expected: Sequence[str] = (),
        request_id: str | None = None,
    ) -> Done:
        """Take keys back to the model before, all or none; `expected` is what must be in production of each now.

        Raises:
            SignalServeError, ValueError: nothing was changed, or the answer was lost.
        """
        with self._client(user) as client:
            return _done("rollback", client.rollback(list(keys), reason, request_id, expected))

    def archive(
        self,
        model_ids: Sequence[str],
        user: User,
        *,
        reason: str = "",
        allow_unserved: bool = False,
        request_id: str | None = None,
    ) -> Done:
        """Retire models, all or none.

        Raises:
            SignalServeError, ValueError: nothing was changed, or the answer was lost.
        """
        with self._client(user) as client:
            return _done("archive", client.archive(list(model_ids), reason, allow_unserved, request_id))

    @contextmanager
    def _client(self, user: User) -> Iterator[SignalClient]:
        if not _AT_ONCE.acquire(blocking=False):
            raise ResourceExhausted(
                f"{_MOST_AT_ONCE} changes are under way already; try again shortly", retry_after=1.0
            )
        try:
            with self._server.client(user.token, user.name) as client:
                yield client
        finally:
            _AT_ONCE.release()


def _done(action: str, result: PromoteResult) -> Done:
    return Done(
        action=action,
        transitions=tuple(
            Transition(
                text_of(item.symbol),
                text_of(item.timeframe),
                text_of(item.model_id),
                text_of(item.previous_model_id),
            )
            for item in result.transitions
        ),
        registry_revision=result.registry_revision,
        served_revision=result.served_revision,
        served=result.served,
        request_id=result.request_id,
    )
