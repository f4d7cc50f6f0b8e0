"""What both clients are made of: the way to the server, the deadlines, and the start of every call."""

from __future__ import annotations

import random
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar
from weakref import WeakSet

import grpc
from google.protobuf.wrappers_pb2 import StringValue

from ..v1.prediction_service_pb2_grpc import PredictionServiceStub
from ..v1.registry_service_pb2_grpc import RegistryServiceStub
from ..v1.serving_status_pb2 import WatchServingStatusRequest
from . import requests as build
from .call import Call, Kind, Stubs
from .channel import Metadata, endpoint
from .errors import DeadlineExceeded, ResourceExhausted, SignalServeError
from .exchange import Exchange
from .health import HealthStub
from .latency import LatencySummary, LatencyWindow
from .opening import Opening
from .tls import TlsLike
from .token import Token

Q = TypeVar("Q")
A = TypeVar("A")
ChannelT = TypeVar("ChannelT", grpc.Channel, grpc.aio.Channel)


_SHORTEST_PAUSE = 0.01
_TRIES = 4


class BaseClient(ABC, Generic[ChannelT]):
    """A client without its waiting: what is started here is awaited, or not, in `SignalClient` and its twin."""

    def __init__(
        self,
        target: str,
        token: Token = None,
        tls: TlsLike = None,
        deadline_ms: float = build.DEADLINE_MS,
        *,
        read_deadline_ms: float = build.READ_DEADLINE_MS,
        write_deadline_ms: float = build.WRITE_DEADLINE_MS,
        max_message_mb: float = build.MESSAGE_MB,
        insecure: bool = False,
        via: str = "",
        actor: Callable[[], str] | None = None,
    ) -> None:
        self.deadline_ms = build.default_deadline("deadline_ms", deadline_ms)
        self.read_deadline_ms = build.default_deadline("read_deadline_ms", read_deadline_ms)
        self.write_deadline_ms = build.default_deadline("write_deadline_ms", write_deadline_ms)
        self._most_bytes = build.message_bytes(max_message_mb)
        self._endpoint = endpoint(target, token, tls, insecure=insecure, via=via, actor=actor)
        self._latencies = LatencyWindow()
        self._closed = False
        self._renewing = threading.Lock()
        # channels with other TLS files, whose streams go on; each lives as long as a call holds it
        self._superseded: WeakSet[ChannelT] = WeakSet()
        self._connect()

    @property
    def target(self) -> str:
        """The target as it was given."""
        return self._endpoint.target

    def latency(self) -> LatencySummary:
        """Summarise how long answers took: predictions, whole batches, and the answers of streams from their send."""
        return self._latencies.summary()

    @abstractmethod
    def _open(self) -> ChannelT:
        """Return a channel to the endpoint."""

    def _connect(self) -> None:
        self._channel: ChannelT = self._open()
        self._stubs = Stubs(
            self._channel,
            PredictionServiceStub(self._channel),
            RegistryServiceStub(self._channel),
            HealthStub.of(self._channel),
        )

    def _present(self) -> Stubs:
        """The stubs of the present channel, which is another one once the TLS files were replaced."""
        self._check_open()
        tls = self._endpoint.tls
        if tls is not None and tls.due and self._renewing.acquire(blocking=False):
            try:
                before = self._channel
                if not self._closed and tls.renew():
                    self._connect()
                    self._superseded.add(before)
            finally:
                self._renewing.release()
        return self._stubs

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the client is closed")

    def _start(self, stubs: Stubs, call: Call[Q, A, Any], deadline_ms: float | None) -> A:
        """Start a call; gives its answer on a channel for threads, and what is awaited for it on the other.

        Whoever waits for it holds the stubs.
        """
        return call.method(stubs)(
            call.request,
            timeout=build.seconds(self._default_ms(call.kind) if deadline_ms is None else deadline_ms),
            metadata=self._endpoint.metadata(change=call.kind is Kind.CHANGE),
        )

    def _start_watch(self, stubs: Stubs, deadline_ms: float | None) -> Any:
        """Start a watch of the serving status; gives the call to iterate, as long as the stubs are held."""
        return stubs.prediction.WatchServingStatus(
            WatchServingStatusRequest(),
            timeout=None if deadline_ms is None else build.seconds(deadline_ms),
            metadata=self._endpoint.metadata(),
        )

    def _start_health_watch(self, stubs: Stubs, service: str, seconds: float) -> Any:
        """Start a watch of the health, which waits for a connection; gives the call to iterate."""
        return stubs.health.watch(
            StringValue(value=service),
            timeout=seconds,
            metadata=self._endpoint.metadata(),
            wait_for_ready=True,
        )

    def _stream_opening(self, *, reconnect: bool) -> Opening:
        """Return what gives a stream its calls; those of one that reconnects wait for a connection."""

        def call() -> Callable[..., Any]:
            return partial(_open_stream, self._present(), self._endpoint.metadata(), reconnect)

        return Opening(call, lambda: self._closed, self.target, self._most_bytes)

    def _exchange(self, max_pending: int, deadline_ms: float, *, reconnect: bool) -> Exchange:
        seconds = build.seconds(deadline_ms)
        return Exchange(max_pending, seconds, lasting=reconnect, latencies=self._latencies)

    def _refuse_past(
        self, call: Call[Q, A, Any], left_ms: float | None, deadline_ms: float | None = None
    ) -> None:
        """DeadlineExceeded for a deadline that is no time at all: gRPC may answer within it all the same.

        `deadline_ms`: the call's own, of which so much is left.
        """
        if left_ms is not None and build.seconds(left_ms) <= 0.0:
            raise self._too_late(call, left_ms if deadline_ms is None else deadline_ms)

    def _note_answer(self, call: Call[Q, A, Any], deadline_ms: float | None, took_ms: float) -> None:
        """DeadlineExceeded for an answer after its deadline; a change that was made is told in any case."""
        limit = self._default_ms(call.kind) if deadline_ms is None else deadline_ms
        if took_ms > limit and call.kind is not Kind.CHANGE:
            raise self._too_late(call, limit)
        if call.kind is Kind.PREDICTION:
            self._latencies.add(took_ms)

    def _too_late(self, call: Call[Q, A, Any], deadline_ms: float) -> DeadlineExceeded:
        text = f"no answer within {deadline_ms:g} ms [{self.target}]"
        return DeadlineExceeded(text, request_id=call.request_id)

    def _retry_pause(
        self,
        error: SignalServeError | None,
        call: Call[Q, A, Any],
        deadline_ms: float | None,
        took_ms: float,
        tries: int,
    ) -> float | None:
        """Seconds to wait before a refused call is made again; None where it can't be, or not in time.

        gRPC's own retries can't tell a full server, which says when to come again, from a message over the limit,
        which stays so.
        """
        limit = self._default_ms(call.kind) if deadline_ms is None else deadline_ms
        if tries >= _TRIES or not isinstance(error, ResourceExhausted) or error.retry_after is None:
            return None
        pause = max(error.retry_after, _SHORTEST_PAUSE) * (1.0 + 0.2 * random.random())  # noqa: S311 - no secret
        return pause if took_ms + pause * 1000.0 < limit else None

    def _left_ms(self, call: Call[Q, A, Any], deadline_ms: float | None, took_ms: float) -> float:
        return (self._default_ms(call.kind) if deadline_ms is None else deadline_ms) - took_ms

    def _default_ms(self, kind: Kind) -> float:
        if kind is Kind.PREDICTION:
            return self.deadline_ms
        return self.read_deadline_ms if kind is Kind.READ else self.write_deadline_ms


def _open_stream(stubs: Stubs, metadata: Metadata, wait_for_ready: bool, requests: Any = None) -> Any:
    return stubs.prediction.PredictStream(requests, metadata=metadata, wait_for_ready=wait_for_ready or None)
