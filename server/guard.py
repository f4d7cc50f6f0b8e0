"""What stands around every handler: drain, the bound on calls in flight, and errors on the wire.

gRPC's server interceptor wraps a method's handler once; the wrapped one is kept, so a call pays for a
counter and a try, not for building closures.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar, cast

import grpc
import structlog

from server.errors import DrainingError, OverloadedError, code_of, status_of

_log = structlog.get_logger("server")

T = TypeVar("T")
Request = TypeVar("Request")
Response = TypeVar("Response")

_OURS = "/signalserve.v1."


class CallGuard(grpc.aio.ServerInterceptor):
    """Counts calls in flight, refuses when draining or full, and turns errors into status codes."""

    def __init__(self, max_in_flight: int) -> None:
        self._max_in_flight = max_in_flight
        self._wrapped: dict[str, Any] = {}
        self.in_flight = 0
        self.draining = False
        self.streams: set[OpenStream] = set()

    def drain(self) -> None:
        """Refuse new calls; open streams end after the answers that they owe."""
        self.draining = True
        for stream in list(self.streams):
            stream.wake_if_idle()

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Request, Response] | None]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Request, Response] | None:
        """Give the wrapped handler of a method of ours, and any other as it is."""
        method = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is not None:
            return cast("grpc.RpcMethodHandler[Request, Response]", wrapped)
        handler = await continuation(handler_call_details)
        if handler is None or not method.startswith(_OURS):
            return handler
        self._wrapped[method] = guarded = self._wrap(handler)
        return guarded

    def _wrap(self, handler: Any) -> grpc.RpcMethodHandler[Any, Any]:
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(
                self._unary(handler.unary_unary),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(
                self._stream(handler.unary_stream),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        return grpc.stream_stream_rpc_method_handler(
            self._stream(handler.stream_stream),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _unary(self, behaviour: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def guarded(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            if self.draining:
                await _abort(context, _draining())
            if self.in_flight >= self._max_in_flight:
                await _abort(
                    context,
                    OverloadedError(
                        "TOO_MANY_IN_FLIGHT",
                        f"{self._max_in_flight} calls are being worked on already; try again shortly",
                    ),
                )
            self.in_flight += 1
            try:
                return await behaviour(request, context)
            except grpc.aio.AbortError:
                raise
            except Exception as error:  # noqa: BLE001 - status_of tells refusals from bugs
                await _abort(context, error)
            finally:
                self.in_flight -= 1

        return guarded

    def _stream(self, behaviour: Callable[..., AsyncIterator[Any]]) -> Callable[..., AsyncIterator[Any]]:
        async def guarded(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
            if self.draining:
                await _abort(context, _draining())
            stream = OpenStream(self)
            self.streams.add(stream)
            try:
                async for answer in behaviour(request, context, stream):
                    yield answer
                if self.draining:
                    await _abort(context, _draining())
            except grpc.aio.AbortError:
                raise
            except Exception as error:  # noqa: BLE001 - as for a unary call
                await _abort(context, error)
            finally:
                self.streams.discard(stream)

        return guarded


class OpenStream:
    """One stream's part in the drain: it can be woken while it waits for its peer."""

    def __init__(self, guard: CallGuard) -> None:
        self._guard = guard
        self._task: asyncio.Task[Any] | None = asyncio.current_task()
        self._idle = False

    @property
    def draining(self) -> bool:
        """Whether the stream should end as soon as it owes nothing."""
        return self._guard.draining

    async def wait_for(self, arrival: Awaitable[T]) -> T | None:
        """Wait for something; None where the drain began first.

        Cancelling the wait is cheaper than racing two tasks for every message of a stream.
        """
        self._task = asyncio.current_task()
        self._idle = True
        try:
            if self.draining:  # what is here already is still answered
                async with asyncio.timeout(_LAST_LOOK_SECONDS):
                    return await arrival
            return await arrival
        except TimeoutError:
            return None
        except asyncio.CancelledError:
            if self.draining and self._task is not None and self._task.cancelling():
                self._task.uncancel()
                return None
            raise
        finally:
            self._idle = False

    def wake_if_idle(self) -> None:
        """Interrupt `wait_for`; a stream that is answering looks at `draining` by itself."""
        if self._idle and self._task is not None:
            self._task.cancel()


_LAST_LOOK_SECONDS = 0.02


def _draining() -> DrainingError:
    return DrainingError("DRAINING", "the server is stopping; connect to another one or try again")


async def _abort(context: grpc.aio.ServicerContext[Any, Any], error: BaseException) -> None:
    status = status_of(error)
    await context.abort(
        code_of(status),
        status.message,
        trailing_metadata=(("grpc-status-details-bin", status.SerializeToString()),),
    )
