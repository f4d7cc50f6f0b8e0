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
from .encode import Features
from .errors import Cancelled, SignalServeError, Unavailable, from_rpc_error
from .exchange import Exchange
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
    the stream.
    """

    def __init__(self, open_call: Callable[[], Any], where: str, max_pending: int, deadline: float) -> None:
        self._exchange = Exchange(max_pending, deadline)
        self._changed = asyncio.Event()
        self._writing = asyncio.Lock()
        self._where = where
        self._open_call = open_call  # holds the channel, which may have been superseded meanwhile
        self._call = open_call()
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
        )
        exchange = self._exchange
        give_up = perf_counter() + exchange.deadline
        async with self._writing:
            while not exchange.has_room():
                if perf_counter() >= give_up:
                    raise exchange.full()
                await self._wait(give_up - perf_counter())
            number = exchange.sent(sequence, perf_counter())
            message.request.sequence = number
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
        try:
            # a server that reads nothing holds a write up for ever
            async with asyncio.timeout(self._exchange.deadline):
                await self._call.write(message)
        except TimeoutError:
            self._break(self._exchange.overdue(perf_counter()) or self._exchange.full())
        except (grpc.RpcError, asyncio.InvalidStateError):
            await asyncio.wait({self._reader}, timeout=self._exchange.deadline)
            self._break(Unavailable(f"the stream broke while sending [{self._where}]"))
        else:
            return
        self._exchange.has_room()  # raises what broke the stream

    async def _wait(self, longest: float | None = None) -> None:
        """Wait for a change; break the stream where the oldest answer is overdue."""
        limit = self._exchange.patience(perf_counter(), longest)
        self._changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(limit):
                await self._changed.wait()
        error = self._exchange.overdue(perf_counter())
        if error is not None:
            self._break(error)

    def _break(self, error: SignalServeError) -> None:
        self._exchange.fail(error)
        self._changed.set()
        self._call.cancel()

    async def _stop(self) -> None:
        self._call.cancel()
        await asyncio.wait({self._reader})

    async def _read(self) -> None:
        try:
            while (message := await self._call.read()) is not grpc.aio.EOF:
                self._exchange.arrived(message, perf_counter())
                self._changed.set()
            self._exchange.finish()
        except grpc.RpcError as error:
            self._exchange.fail(from_rpc_error(error, where=self._where))
        except SignalServeError as error:
            self._break(error)
        except asyncio.CancelledError:
            self._exchange.fail(Cancelled("the stream was cancelled"))
            raise
        finally:
            self._changed.set()
