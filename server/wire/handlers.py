"""Puts the guard around a service's handlers, and errors on the wire.

gRPC's own server interceptor would do the same for about 0.1 ms a call: it looks the handler up anew and wraps
each call in two coroutines more.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, NoReturn, Protocol

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc.status_pb2 import Status

from signalserve.access.errors import AccessError
from signalserve.access.identity import Credential
from signalserve.access.table import Row, row_of
from signalserve.server.errors import BehindError, RequestError, ServingError
from signalserve.server.guard import Call, Caller, CallGuard, StreamCall, draining
from signalserve.server.metrics import RpcCounts
from signalserve.server.wire.errors import code_of, status_of
from signalserve.server.wire.fields import parsed

Parse = Callable[[bytes], Message]

# gRPC's own word to a client that repeats calls
_NO_RETRY = ("grpc-retry-pushback-ms", "-1")

# what is parsed in a millisecond or two; some thousands of model ids
_MOST_BYTES = 512 * 1024

Context = grpc.aio.ServicerContext[Any, Any]

ACTOR_HEADER = "signalserve-actor"
VIA_HEADER = "signalserve-via"
_VIAS = frozenset({"lab"})


class Service(Protocol):
    """A service's methods by their names on the wire; those in `takes_bytes` are given requests unparsed."""

    @property
    def takes_bytes(self) -> frozenset[str]:
        """Names of methods."""


def guarded(service: Service, descriptor: ServiceDescriptor, guard: CallGuard) -> grpc.GenericRpcHandler:
    """A handler for gRPC: a service's methods by their names on the wire, with the guard around each.

    A unary method is called with the request and a `Call`; one that answers with a stream with a `StreamCall`,
    and where the requests are a stream too, with the function that reads the next one in place of a request.
    Any of them may give a message or its bytes.
    """
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
    for method in descriptor.methods:
        behaviour, counts = getattr(service, method.name), guard.counts(method.name)
        row = row_of(f"/{descriptor.full_name}/{method.name}")
        parse = None if method.name in service.takes_bytes else GetMessageClass(method.input_type).FromString
        if method.server_streaming:
            kind: Any = (
                grpc.stream_stream_rpc_method_handler
                if method.client_streaming
                else grpc.unary_stream_rpc_method_handler
            )
            handler: Any = _stream(behaviour, guard, counts, row, parse, reads=method.client_streaming)
        else:
            kind, handler = grpc.unary_unary_rpc_method_handler, _unary(behaviour, guard, counts, row, parse)
        handlers[method.name] = kind(handler, response_serializer=_bytes_of)
    return grpc.method_handlers_generic_handler(descriptor.full_name, handlers)


def _read(parse: Parse, content: bytes) -> Message:
    """A request of a bounded size: nobody else has a turn while it is parsed.

    Raises:
        RequestError: it is too large, or none.
    """
    if len(content) > _MOST_BYTES:
        raise RequestError(
            "REQUEST_TOO_LARGE", f"a request of {len(content)} bytes; the limit of this call is {_MOST_BYTES}"
        )
    return parsed(parse, content)


def _bytes_of(answer: Any) -> bytes:
    return answer if isinstance(answer, bytes) else answer.SerializeToString()


def admitted(
    behaviour: Callable[[Any, Context], AsyncIterator[Any]], guard: CallGuard, operation: str
) -> Callable[[Any, Context], AsyncIterator[Any]]:
    """A library's own stream, for those who may call it; it is not counted in flight and holds no drain up."""
    row, counts = row_of(operation), guard.counts(operation.rpartition("/")[2])

    async def handle(requests: Any, context: Context) -> AsyncIterator[Any]:
        await _admit(guard, row, Call(counts, context, identify), context)
        async for answer in behaviour(requests, context):
            yield answer

    return handle


def refusal(call: Call, error: Exception) -> Status:
    """The status that a call, or an item of it, is refused with; counts it."""
    status = status_of(error)
    call.refused(code_of(status).name)
    return status


def _unary(
    behaviour: Callable[[Any, Call], Awaitable[Any]],
    guard: CallGuard,
    counts: RpcCounts,
    row: Row,
    parse: Parse | None,
) -> Callable[[Any, Context], Awaitable[Any]]:
    asks = guard.gatekeeper is not None

    async def handle(request: Any, context: Context) -> Any:
        call = Call(counts, context, identify)
        if asks:
            await _admit(guard, row, call, context)
        try:
            guard.begin()
        except ServingError as error:
            await abort(context, call, error)
        try:
            answer = await behaviour(request if parse is None else _read(parse, request), call)
        except Exception as error:  # noqa: BLE001 - status_of tells refusals from bugs
            await abort(context, call, error)
        else:
            call.ended_well()
            return answer
        finally:
            guard.end()

    return handle


def _stream(
    behaviour: Callable[[Any, StreamCall], AsyncIterator[Any]],
    guard: CallGuard,
    counts: RpcCounts,
    row: Row,
    parse: Parse | None,
    *,
    reads: bool,
) -> Callable[[Any, Context], AsyncIterator[Any]]:
    async def handle(request: Any, context: Context) -> AsyncIterator[Any]:
        call = StreamCall(guard, counts, context, identify)
        call.row = row
        await _admit(guard, row, call, context)
        try:
            guard.open(call)
        except ServingError as error:
            await abort(context, call, error)
        try:
            source = context.read if reads else request if parse is None else _read(parse, request)
            async for answer in behaviour(source, call):
                yield answer
            if call.ended_by is not None:
                raise call.ended_by
            if guard.draining:
                raise draining()
        except Exception as error:  # noqa: BLE001 - as for a unary call
            await abort(context, call, error)
        finally:
            guard.close(call)

    return handle


async def abort(context: Context, call: Call, error: Exception) -> NoReturn:
    """End a call with an error."""
    status = refusal(call, error)
    trailing: tuple[tuple[str, str | bytes], ...] = (("grpc-status-details-bin", status.SerializeToString()),)
    if isinstance(error, BehindError):
        trailing += (_NO_RETRY,)  # it was waited for: what a retry would end with says less
    await context.abort(code_of(status), status.message, trailing_metadata=trailing)
    raise AssertionError("abort raises")


async def _admit(guard: CallGuard, row: Row, call: Call, context: Context) -> None:
    """Let the call in, or end it as the table says."""
    if guard.gatekeeper is None:
        return
    try:
        call.identity = guard.gatekeeper.admit(row, _credential(context))
    except AccessError as error:
        await guard.gatekeeper.turn_away(error, row, call.caller.address, call.remaining())
        await abort(context, call, error)


def bearer_of(metadata: Iterable[tuple[str, str | bytes]] | None) -> str:
    """The bearer token of a call's metadata; empty for none."""
    scheme, _, token = _header(metadata, "authorization").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _credential(context: Context) -> Credential:
    if token := bearer_of(context.invocation_metadata()):
        return Credential(token)
    return Credential(certificate=next(iter(context.auth_context().get("x509_pem_cert", ())), b""))


def identify(context: Context) -> Caller:
    """Where a call comes from, and what it says of itself."""
    metadata = context.invocation_metadata()
    via = _header(metadata, VIA_HEADER)
    # `ipv4:127.0.0.1:40000`: the port is another one with each connection
    address = context.peer().rpartition(":")[0] or context.peer()
    return Caller(address, _header(metadata, ACTOR_HEADER), via=via if via in _VIAS else "")


def _header(metadata: Iterable[tuple[str, str | bytes]] | None, name: str) -> str:
    value = next((value for key, value in metadata or () if key == name), "")
    return value if isinstance(value, str) else ""
