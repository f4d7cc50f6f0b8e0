"""The prediction stream of SignalClient."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from time import perf_counter
from types import TracebackType
from typing import Any, Self, TypeAlias

import grpc

from ..v1 import prediction_pb2
from .encode import Features
from .errors import Cancelled, SignalServeError, from_rpc_error
from .exchange import Exchange
from .requests import stream_request
from .values import StreamItem

OpenCall: TypeAlias = Callable[[Iterator[prediction_pb2.PredictStreamRequest]], Any]


class Stream:
    """Requests one way, answers the other, in order, over one call.

    Iteration gives a `StreamItem` a request: a prediction, or the typed error of that one request, which ends
    nothing. It waits for answers while the stream is open, and ends after `close()` and the last answer. When
    the stream breaks (server gone, draining, an answer overdue), `send` and iteration both raise the error;
    open another then. `send` may be called from many threads, iteration from one at a time.

    ::

        with client.stream() as stream:
            stream.send("BTCUSDT", "15m", {"rsi_14": 61.5})
            item = next(stream)              # ping-pong
            for row in rows:                 # or pipelined
                stream.send("BTCUSDT", "15m", row)
            stream.close()                   # no more requests; wait for the answers
            for item in stream:
                print(item.sequence, item.prediction.score if item.ok else item.error)
    """

    def __init__(self, open_call: OpenCall, where: str, max_pending: int, deadline: float) -> None:
        self._exchange = Exchange(max_pending, deadline)
        self._changed = threading.Condition()
        self._where = where
        self._outgoing: queue.SimpleQueue[prediction_pb2.PredictStreamRequest | None] = queue.SimpleQueue()
        self._open_call = open_call  # holds the channel, which may have been superseded meanwhile
        self._call = open_call(iter(self._outgoing.get, None))
        self._reader = threading.Thread(target=self._read, name="signalserve-stream", daemon=True)
        self._reader.start()

    def send(
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
        """Send one request and return its sequence (by default the last one plus 1, from 1).

        Waits while `max_pending` requests are pending or unread; ResourceExhausted where that lasts longer
        than the stream's deadline. Raises the stream's error where it is broken, ValueError and TypeError for
        features that cannot be sent.
        """
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
        with self._changed:
            while not exchange.has_room():
                if perf_counter() >= give_up:
                    raise exchange.full()
                self._wait(give_up - perf_counter())
            number = exchange.sent(sequence, perf_counter())
            message.request.sequence = number
            self._outgoing.put(message)
            self._changed.notify_all()  # a reader that waited without a limit has one now
        return number

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> StreamItem:
        """Return the next answer; waits for it, and with nothing pending for another thread's send.

        DeadlineExceeded where none comes within the stream's deadline; the stream stays open.
        """
        give_up = perf_counter() + self._exchange.deadline
        with self._changed:
            while (item := self._exchange.take()) is None:
                if self._exchange.exhausted:
                    raise StopIteration
                self._wait(self._exchange.idle_patience(perf_counter(), give_up))
            self._changed.notify_all()  # there is room for one more
        return item

    def close(self) -> None:
        """Send nothing more, wait for the pending answers (still readable then), end the call. Never raises."""
        with self._changed:
            if not self._exchange.closing:
                self._exchange.closing = True
                self._outgoing.put(None)
                self._changed.notify_all()
            while not self._exchange.settled:
                self._wait()
            if not self._exchange.ended:  # the server's last word, so that it sees an end and no cancellation
                self._changed.wait_for(lambda: self._exchange.ended, self._exchange.deadline)
        self._call.cancel()
        self._reader.join()

    def cancel(self) -> None:
        """Give up the stream and its pending answers at once."""
        with self._changed:
            self._break(Cancelled("the stream was cancelled"))
        self._reader.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc_type is None:
            self.close()
        else:
            self.cancel()

    def _wait(self, longest: float | None = None) -> None:
        """Wait for a change; break the stream where the oldest answer is overdue."""
        limit = self._exchange.patience(perf_counter(), longest)
        self._changed.wait(limit)
        error = self._exchange.overdue(perf_counter())
        if error is not None:
            self._break(error)

    def _break(self, error: SignalServeError) -> None:
        self._exchange.fail(error)
        self._changed.notify_all()
        self._call.cancel()

    def _read(self) -> None:
        try:
            for message in self._call:
                with self._changed:
                    self._exchange.arrived(message, perf_counter())
                    self._changed.notify_all()
            with self._changed:
                self._exchange.finish()
        except grpc.RpcError as error:
            with self._changed:
                self._exchange.fail(from_rpc_error(error, where=self._where))
        except SignalServeError as error:
            with self._changed:
                self._break(error)
        finally:
            with self._changed:
                self._changed.notify_all()
            self._outgoing.put(None)  # lets gRPC's sending thread go
