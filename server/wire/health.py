"""grpc.health.v1, as one server answers it.

| asked about                                | SERVING while                                                      |
|--------------------------------------------|--------------------------------------------------------------------|
| nothing, or one of the two services        | first loads have ended, some model is served, and no drain began   |
| a key, `BTCUSDT/15m`                       | its current model answers, and no drain began                      |
| `registry`                                 | the registry can be read                                           |
| `liveness`                                 | the process answers at all, drains included                        |

The library's own servicer is told each state; here a key's is looked up when somebody asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from signalserve.common.key import Key
from signalserve.server.snapshot import ServingState

LIVENESS, REGISTRY = "liveness", "registry"

Context = grpc.aio.ServicerContext[Any, Any]
_State = health_pb2.HealthCheckResponse


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # the generated class is untyped
    """The health service; `changed` tells those who watch to look again."""

    def __init__(self, services: Sequence[str], state: ServingState, trouble: Callable[[], str]) -> None:
        """`trouble` says why the registry can't be read; empty if it can."""
        self._services = frozenset(["", *services])
        self._state = state
        self._trouble = trouble
        self._draining = False
        self._changes = 0
        self._changed = asyncio.Condition()

    async def changed(self, *, draining: bool = False) -> None:
        """Something may be another than before."""
        self._draining = self._draining or draining
        async with self._changed:
            self._changes += 1
            self._changed.notify_all()

    async def Check(  # noqa: N802 - the name is the method's on the wire
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> health_pb2.HealthCheckResponse:
        """The state now; NOT_FOUND for what nobody knows."""
        state = self._status(request.service)
        if state == _State.SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no service or key {request.service[:200]!r}")
        return health_pb2.HealthCheckResponse(status=state)

    async def List(  # noqa: N802 - as above
        self, request: health_pb2.HealthListRequest, context: Context
    ) -> health_pb2.HealthListResponse:
        """The state of everything but the keys."""
        del request, context
        names = (*sorted(self._services), LIVENESS, REGISTRY)
        return health_pb2.HealthListResponse(
            statuses={name: health_pb2.HealthCheckResponse(status=self._status(name)) for name in names}
        )

    async def Watch(  # noqa: N802 - as above
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """The state now, and each other one that follows."""
        del context
        told = None
        while True:
            seen = self._changes
            state = self._status(request.service)
            if state != told:
                told = state
                yield health_pb2.HealthCheckResponse(status=state)
            async with self._changed:
                await self._changed.wait_for(lambda: self._changes != seen)  # noqa: B023 - it is waited for here

    def _status(self, service: str) -> int:
        snapshot = self._state.snapshot
        if service == LIVENESS:
            return _serving(True)
        if service == REGISTRY:
            return _serving(snapshot.revision >= 0 and not self._trouble())
        if service in self._services:
            return _serving(snapshot.ready and not self._draining)
        try:
            key = Key.parse(service)
        except ValueError:
            return int(_State.SERVICE_UNKNOWN)
        if key in snapshot.by_key:
            return _serving(key not in snapshot.not_current and not self._draining)
        if key in snapshot.known_keys:
            return _serving(False)
        return int(_State.SERVICE_UNKNOWN)


def _serving(yes: bool) -> int:
    return int(_State.SERVING if yes else _State.NOT_SERVING)
