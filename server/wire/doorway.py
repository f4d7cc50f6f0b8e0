"""Who may not call is told so before the message of the call is read.

A refusal that waits would else hold a message of many megabytes, which anybody could send. Only a token is looked at
here; a client certificate is known once the call has begun (`server.wire.handlers`), and its authority was checked
before that.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc

from signalserve.access.errors import AccessError
from signalserve.access.gatekeeper import Gatekeeper
from signalserve.access.identity import Credential
from signalserve.access.table import Row, row_of
from signalserve.server.guard import Call, CallGuard
from signalserve.server.wire.handlers import Context, abort, bearer_of, identify


class Doorway(grpc.GenericRpcHandler):
    """Stands before a server's handlers; it collects them as `grpc.Server` would."""

    def __init__(self, guard: CallGuard, gatekeeper: Gatekeeper, *, takes_certificates: bool) -> None:
        """With `takes_certificates` who shows no token is let through to where certificates are known."""
        self._guard = guard
        self._gatekeeper = gatekeeper
        self._takes_certificates = takes_certificates
        self._inner: list[grpc.GenericRpcHandler] = []

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Take a service's handlers."""
        self._inner += handlers

    def add_registered_method_handlers(self, service: str, handlers: Any) -> None:
        """The same handlers by another way, which grpc.aio does not go."""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler of a call, or one that refuses it."""
        handler = next((found for inner in self._inner if (found := inner.service(details))), None)
        if handler is None:
            return None
        row = row_of(details.method)
        token = bearer_of(details.invocation_metadata)
        if row.roles is None or (self._takes_certificates and not token):
            return handler
        try:
            self._gatekeeper.admit(row, Credential(token))
        except AccessError as error:
            return _refusing(self._guard, self._gatekeeper, row, error)
        return handler


def _refusing(
    guard: CallGuard, gatekeeper: Gatekeeper, row: Row, error: AccessError
) -> grpc.RpcMethodHandler[Any, Any]:
    """A handler that reads nothing, whatever kind of call it is."""
    counts = guard.counts(row.operation.rpartition("/")[2])

    async def refuse(requests: Any, context: Context) -> None:
        del requests
        call = Call(counts, context, identify)
        await gatekeeper.turn_away(error, row, call.caller.address, call.remaining())
        await abort(context, call, error)

    return grpc.stream_stream_rpc_method_handler(refuse)
