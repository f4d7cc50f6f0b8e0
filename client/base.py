"""What both clients are made of: the way to the server, the deadlines, and the start of every call."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar

import grpc

from ..v1.prediction_service_pb2_grpc import PredictionServiceStub
from ..v1.registry_service_pb2_grpc import RegistryServiceStub
from ..v1.serving_status_pb2 import WatchServingStatusRequest
from . import requests as build
from .call import Call, Kind, Stubs
from .channel import TlsLike, Token, endpoint

Q = TypeVar("Q")
A = TypeVar("A")
ChannelT = TypeVar("ChannelT", grpc.Channel, grpc.aio.Channel)


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
    ) -> None:
        self.deadline_ms = build.default_deadline("deadline_ms", deadline_ms)
        self.read_deadline_ms = build.default_deadline("read_deadline_ms", read_deadline_ms)
        self.write_deadline_ms = build.default_deadline("write_deadline_ms", write_deadline_ms)
        self._endpoint = endpoint(target, token, tls)
        self._closed = False
        self._channel: ChannelT = self._open()
        self._stubs = Stubs(PredictionServiceStub(self._channel), RegistryServiceStub(self._channel))

    @property
    def target(self) -> str:
        """The target as it was given."""
        return self._endpoint.target

    @abstractmethod
    def _open(self) -> ChannelT:
        """Return a channel to the endpoint."""

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the client is closed")

    def _start(self, call: Call[Q, A, Any], deadline_ms: float | None) -> A:
        """Start a call; gives its answer on a channel for threads, and what is awaited for it on the other."""
        self._check_open()
        return call.method(self._stubs)(
            call.request,
            timeout=build.seconds(self._default_ms(call.kind) if deadline_ms is None else deadline_ms),
            metadata=self._endpoint.metadata(change=call.kind is Kind.CHANGE),
        )

    def _start_watch(self, deadline_ms: float | None) -> Any:
        """Start a watch of the serving status; gives the call to iterate."""
        self._check_open()
        return self._stubs.prediction.WatchServingStatus(
            WatchServingStatusRequest(),
            timeout=None if deadline_ms is None else build.seconds(deadline_ms),
            metadata=self._endpoint.metadata(),
        )

    def _stream_method(self) -> Callable[..., Any]:
        """Return what starts a stream's call, signed already."""
        self._check_open()
        return partial(self._stubs.prediction.PredictStream, metadata=self._endpoint.metadata())

    def _default_ms(self, kind: Kind) -> float:
        if kind is Kind.PREDICTION:
            return self.deadline_ms
        return self.read_deadline_ms if kind is Kind.READ else self.write_deadline_ms
