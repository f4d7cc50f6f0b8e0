"""The prediction stream of AsyncSignalClient."""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from time import perf_counter
from types import TracebackType
from typing import Any, Self

import grpc

from ..v1 import prediction_pb2
from .backoff import Backoff
from .encode import Features
from .errors import Cancelled, SignalServeError, Unavailable, from_rpc_error
from .exchange import Exchange
from .opening import Opening
from .requests import stream_request
from .values import StreamItem


class AsyncStream:
    """The async twin of `Stream`; any number of tasks may send, one at a time iterates.

    ::

        async with client.stream() as stream:
            await stream.send("BTCUSDT", "15m", {"rsi_14": 61.5})
            item = await anext(stream)
            await stream.close()
            async for item in stream:
                ...

    A wait for an answer may be cancelled without harm. A cancelled `send` may have been half done, and breaks
    the stream; one that reconnects goes on over another call.
    """

    def __init__(self, opening: Opening, exchange: Exchange) -> None:
        self._exchange = exchange
        self._changed = asyncio.Event()
        self._writing = asyncio.Lock()
        self._opening = opening
        self._backoff = Backoff()
        self._proven = False  # the present call has answered
        self._given_up = False  # the present call, by this side
        self._open_call = opening.call()  # holds the channel, which may have been superseded meanwhile
        self._call = self._open_call()
        self._resender: asyncio.Task[None] | None = None
        self._reader = asyncio.get_running_loop().create_task(self._read())

    async def send(
        self,
        symbol: str,
        timeframe: str,
        features: Features,
        model_id: str | None = None,
        *,
        feature_names: Iterable[str] | None = None,
        schema_hash: str | None = None,
        feature_set: str | None = None,
        min_registry_revision: int | None = None,
        event_time: datetime | None = None,
        request_id: str | None = None,
        sequence: int | None = None,
    ) -> int:
        """Send one request and return its sequence; waits and raises as `Stream.send`."""
        message = stream_request(
            symbol,
            timeframe,
            features,
            model_id,
            feature_names,
            schema_hash,
            event_time,
            request_id,
            sequence,
            feature_set,
            min_registry_revision,
            self._opening.most_bytes,
        )
        exchange = self._exchange
        give_up = perf_counter() + exchange.deadline
        async with self._writing:
            while not exchange.has_room():
                if perf_counter() >= give_up:
                    raise exchange.full()
                await self._wait(give_up - perf_counter())
            number = exchange.sent(message, sequence, perf_counter())
            self._changed.set()  # a reader that waited without a limit has one now
            await self._write(message)
        return number

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamItem:
        """Return the next answer; waits for it, and with nothing pending for another task's send, as `Stream` does."""
        give_up = perf_counter() + self._exchange.deadline
        while (item := self._exchange.take()) is None:
            if self._exchange.exhausted:
                raise StopAsyncIteration
            await self._wait(self._exchange.idle_patience(perf_counter(), give_up))
        self._changed.set()  # there is room for one more
        return item

    async def close(self) -> None:
        """Send nothing more, wait for the pending answers (still readable then), end the call. Never raises."""
        exchange = self._exchange
        first = not exchange.closing
        exchange.closing = True
        self._changed.set()
        if first and not exchange.ended:
            async with self._writing:
                # the call may end meanwhile; then the reader knows why
                with suppress(grpc.RpcError, asyncio.InvalidStateError, grpc.aio.UsageError):
                    await self._call.done_writing()
        while not exchange.settled:
            await self._wait()
        # the server's last word, so that it sees an end and no cancellation
        await asyncio.wait({self._reader}, timeout=exchange.deadline)
        await self._stop()

    async def cancel(self) -> None:
        """Give up the stream and its pending answers at once."""
        self._break(Cancelled("the stream was cancelled"))
        await self._stop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc_type is None:
            await self.close()
        else:
            await self.cancel()

    async def _write(self, message: prediction_pb2.PredictStreamRequest) -> None:
        call, lasting = self._call, self._exchange.lasting
        try:
            # a server that reads nothing holds a write up for ever
            async with asyncio.timeout(self._exchange.deadline):
                await call.write(message)
        except TimeoutError:
            if lasting:
                self._give_up(call)
                return
            self._break(self._exchange.overdue(perf_counter()) or self._exchange.full())
        except (grpc.RpcError, asyncio.InvalidStateError):
            if lasting:
                return  # it is pending, and goes over the next call
            await asyncio.wait({self._reader}, timeout=self._exchange.deadline)
            self._break(Unavailable(f"the stream broke while sending [{self._opening.where}]"))
        except asyncio.CancelledError:
            self._give_up(call)  # gRPC does, where a write is cancelled
            if not lasting or _is_cancelled():
                raise
            return
        else:
            return
        self._exchange.has_room()  # raises what broke the stream

    async def _wait(self, longest: float | None = None) -> None:
        """Wait for a change; break the stream, or give its call up, where the oldest answer is overdue."""
        limit = self._exchange.patience(perf_counter(), longest)
        self._changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(limit):
                await self._changed.wait()
        if self._exchange.expire(perf_counter()):
            self._give_up(self._call)
        error = self._exchange.overdue(perf_counter())
        if error is not None:
            self._break(error)

    async def _until(self, condition: Callable[[], bool], longest: float | None = None) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(longest):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()

    def _give_up(self, call: Any) -> None:
        if call is self._call:
            self._given_up = True
        self._changed.set()
        call.cancel()

    def _break(self, error: SignalServeError) -> None:
        self._exchange.fail(error)
        self._changed.set()
        self._call.cancel()

    async def _stop(self) -> None:
        self._call.cancel()
        await asyncio.wait({self._reader} if self._resender is None else {self._reader, self._resender})

    async def _read(self) -> None:
        try:
            while True:
                error = await self._read_call()
                self._changed.set()
                if not await self._open_another(error):
                    self._exchange.fail(error)
                    return
        except asyncio.CancelledError:
            self._exchange.fail(Cancelled("the stream was cancelled"))
            raise
        finally:
            self._changed.set()

    async def _read_call(self) -> SignalServeError | None:
        """Read the call to its end; gives what ended it, None where all is done."""
        try:
            while (message := await self._call.read()) is not grpc.aio.EOF:
                if not self._given_up:
                    self._exchange.arrived(message, perf_counter())
                    self._proven = True
                    self._changed.set()
            return self._exchange.server_ended()
        except grpc.RpcError as error:
            return _typed(error, self._opening.where)
        except SignalServeError as error:
            self._call.cancel()
            return error
        except asyncio.CancelledError:
            if _is_cancelled():
                raise
            return Cancelled("the stream was cancelled")

    async def _open_another(self, error: SignalServeError | None) -> bool:
        """Whether the stream goes on over another call, which is opened once there is something to ask."""
        exchange = self._exchange
        if error is None or self._opening.closed():
            return False
        if not exchange.goes_on(error, proven=self._proven, given_up=self._given_up):
            return False
        if self._proven:
            self._backoff.reset()
        elif not self._given_up:
            pause = max(self._backoff.pause(), error.retry_after or 0.0)
            await self._until(lambda: exchange.ended or (exchange.closing and exchange.settled), pause)
        while True:
            await self._until(lambda: exchange.ended or exchange.closing or not exchange.settled)
            if exchange.settled:
                return False
            await self._writing.acquire()
            if unanswered := [] if exchange.ended else list(exchange.unanswered()):
                break
            self._writing.release()  # what was pending has been given up meanwhile
        self._proven = self._given_up = False
        try:
            self._open_call = self._opening.call()
            self._call = self._open_call()
        except (
            RuntimeError,
            ValueError,
            grpc.aio.UsageError,
        ) as closed:  # the client, or its channel, meanwhile
            self._writing.release()
            exchange.fail(Cancelled(str(closed)))
            return False
        # beside the reading: a server may wait for its answers to be read before it reads on
        again = self._send_again(self._call, unanswered)
        self._resender = asyncio.get_running_loop().create_task(again)
        return True

    async def _send_again(self, call: Any, messages: list[prediction_pb2.PredictStreamRequest]) -> None:
        """Send what is unanswered over a new call; lets go of the writing, which is held."""
        try:
            async with asyncio.timeout(self._exchange.deadline):
                for message in messages:
                    await call.write(message)
                if self._exchange.closing:
                    await call.done_writing()
        except TimeoutError:
            self._give_up(call)
        except (grpc.RpcError, asyncio.InvalidStateError, grpc.aio.UsageError):
            pass  # the reader knows why
        except asyncio.CancelledError:
            if _is_cancelled():
                raise
        finally:
            self._writing.release()


def _typed(error: grpc.RpcError, where: str) -> SignalServeError:
    # grpc.aio forgets how a server ended a call where that met a write (grpc/grpc#36066)
    if (error.code(), error.details()) == (grpc.StatusCode.INTERNAL, "Internal error from Core"):
        text = f"the server ended the stream while a request was sent, and why is lost [{where}]"
        return Unavailable(text, reason="STATUS_LOST")
    return from_rpc_error(error, where=where)


def _is_cancelled() -> bool:
    """Whether it is this task that was cancelled, and not the call."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
