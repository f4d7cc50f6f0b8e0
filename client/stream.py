"""The prediction stream of SignalClient."""

import queue
import threading
from collections.abc import Iterable
from datetime import datetime
from time import perf_counter
from types import TracebackType
from typing import Self

import grpc

from ..v1 import prediction_pb2
from .backoff import Backoff
from .encode import Features
from .errors import Cancelled, SignalServeError, from_rpc_error
from .exchange import Exchange
from .opening import Opening
from .requests import stream_request
from .values import StreamItem


class Stream:
    """Requests one way, answers the other, in order, over one call.

    Iteration gives a `StreamItem` a request: a prediction, or the typed error of that one request, which ends
    nothing. It waits for answers while the stream is open, and ends after `close()` and the last answer. When
    the stream breaks (server gone, draining, an answer overdue), `send` and iteration both raise the error;
    open another then. `send` may be called from many threads, iteration from one at a time.

    With `reconnect` it does so by itself where its server goes, is full or hangs: what is unanswered is sent again, in
    its order and with its sequences, and a request that gets no answer in time is an item with its error, after which
    the stream goes on (`client.exchange` has the rules).

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

    def __init__(self, opening: Opening, exchange: Exchange) -> None:
        self._exchange = exchange
        self._changed = threading.Condition()
        self._opening = opening
        self._backoff = Backoff()
        self._proven = False  # the present call has answered
        self._given_up = False  # the present call, as its server hangs
        self._outgoing: queue.SimpleQueue[prediction_pb2.PredictStreamRequest | None] = queue.SimpleQueue()
        self._open_call = opening.call()  # holds the channel, which may have been superseded meanwhile
        self._call = self._open_call(iter(self._outgoing.get, None))
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
        features that cannot be sent, more than `max_message_mb` among them.
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
            self._opening.most_bytes,
        )
        exchange = self._exchange
        give_up = perf_counter() + exchange.deadline
        with self._changed:
            while not exchange.has_room():
                if perf_counter() >= give_up:
                    raise exchange.full()
                self._wait(give_up - perf_counter())
            number = exchange.sent(message, sequence, perf_counter())
            self._outgoing.put(message)
            self._changed.notify_all()  # a reader that waited without a limit has one now
        return number

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> StreamItem:
        """Return the next answer; waits for it, and with nothing pending for another thread's send.

        DeadlineExceeded where nothing is sent within the stream's deadline; the stream stays open.
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
        """Wait for a change; break the stream, or give its call up, where the oldest answer is overdue."""
        limit = self._exchange.patience(perf_counter(), longest)
        self._changed.wait(limit)
        if self._exchange.expire(perf_counter()):
            self._given_up = True
            self._changed.notify_all()
            self._call.cancel()
        error = self._exchange.overdue(perf_counter())
        if error is not None:
            self._break(error)

    def _break(self, error: SignalServeError) -> None:
        self._exchange.fail(error)
        self._changed.notify_all()
        self._call.cancel()

    def _read(self) -> None:
        while True:
            error = self._read_call()
            with self._changed:
                self._outgoing.put(None)  # lets gRPC's sending thread go
                self._changed.notify_all()
                if not self._open_another(error):
                    self._exchange.fail(error)
                    self._changed.notify_all()
                    return

    def _read_call(self) -> SignalServeError | None:
        """Read the call to its end; gives what ended it, None where all is done."""
        try:
            for message in self._call:
                with self._changed:
                    if self._given_up:
                        continue
                    self._exchange.arrived(message, perf_counter())
                    self._proven = True
                    self._changed.notify_all()
            with self._changed:
                return self._exchange.server_ended()
        except grpc.RpcError as error:
            return from_rpc_error(error, where=self._opening.where)
        except SignalServeError as error:
            self._call.cancel()
            return error

    def _open_another(self, error: SignalServeError | None) -> bool:
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
            self._changed.wait_for(lambda: exchange.ended or (exchange.closing and exchange.settled), pause)
        self._changed.wait_for(lambda: exchange.ended or exchange.closing or not exchange.settled)
        if exchange.settled:
            return False
        self._proven = self._given_up = False
        self._outgoing = queue.SimpleQueue()
        for message in exchange.unanswered():
            self._outgoing.put(message)
        if exchange.closing:
            self._outgoing.put(None)
        try:
            self._open_call = self._opening.call()
            self._call = self._open_call(iter(self._outgoing.get, None))
        except (RuntimeError, ValueError) as closed:  # the client, or its channel, meanwhile
            exchange.fail(Cancelled(str(closed)))
            return False
        return True
