"""SignalClient: calls to a signalserve server from ordinary threads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeAlias, TypeVar

import grpc

from signalserve.v1 import (
    prediction_service_pb2_grpc,
    registry_pb2,
    registry_service_pb2_grpc,
    serving_status_pb2,
)

from . import requests as build
from .channel import TlsLike, Token, endpoint
from .encode import Features, encode_predict
from .errors import DeadlineExceeded, from_rpc_error
from .registry_values import (
    AuditEvent,
    ModelDetails,
    ModelInfo,
    ModelList,
    PromoteResult,
)
from .requests import Key, PredictionRequest, Promotion
from .stream import Stream
from .values import (
    BatchItem,
    Prediction,
    ServingStatus,
)

_Q = TypeVar("_Q")
_A = TypeVar("_A")

if TYPE_CHECKING:
    _Method: TypeAlias = grpc.UnaryUnaryMultiCallable[_Q, _A]  # no generic at run time


class SignalClient:
    """A client of one target, safe to share between threads; close it, or use it as a context manager.

    `target`: e.g. "localhost:50051" or "ipv4:10.0.0.1:50051,10.0.0.2:50051" (see `client.channel`).
    `token`: the bearer token, or a function that returns the present one. `tls`: True, a file of authorities,
    or `Tls`. `deadline_ms` bounds predictions, `read_deadline_ms` reads of registry and status,
    `write_deadline_ms` promote, rollback and archive; every call takes its own `deadline_ms` too, and none
    is without one but `watch_status`, which watches until it is left.

    Every call raises the typed errors of `client.errors`. A server that is away is an `Unavailable` (or
    DeadlineExceeded) within the deadline; the connection comes back by itself.

    ::

        with SignalClient("localhost:50051", token="...") as client:
            prediction = client.predict("BTCUSDT", "15m", {"rsi_14": 61.5, "atr_14": 0.8})
            print(prediction.score, prediction.model_id)
    """

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
        self._channel = self._open()
        self._prediction = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._registry = registry_service_pb2_grpc.RegistryServiceStub(self._channel)

    @property
    def target(self) -> str:
        """The target as it was given."""
        return self._endpoint.target

    def predict(
        self,
        symbol: str,
        timeframe: str,
        features: Features,
        model_id: str | None = None,
        *,
        feature_names: Iterable[str] | None = None,
        schema_hash: str | None = None,
        event_time: datetime | None = None,
        request_id: str | None = None,
        deadline_ms: float | None = None,
    ) -> Prediction:
        """Score 1..n rows with the key's model, or with `model_id`.

        `features`: a mapping, a list of mappings, a DataFrame, or an array with `feature_names` or
        `schema_hash` (see `client.encode`). `event_time`: the close time of the bar, with its timezone.
        """
        request = encode_predict(
            symbol,
            timeframe,
            features,
            model_id,
            feature_names=feature_names,
            schema_hash=schema_hash,
            event_time=event_time,
            request_id=request_id,
        )
        began = perf_counter()
        answer = self._call(
            self._prediction.Predict,
            request,
            self.deadline_ms if deadline_ms is None else deadline_ms,
            request.request_id,
        )
        return Prediction.from_proto(answer, (perf_counter() - began) * 1000.0)

    def predict_batch(
        self, requests: Iterable[PredictionRequest], *, deadline_ms: float | None = None
    ) -> list[BatchItem]:
        """Score many keys in one message: one prediction or error a request, in their order."""
        request = build.batch_request(requests)
        began = perf_counter()
        answer = self._call(
            self._prediction.PredictBatch,
            request,
            self.deadline_ms if deadline_ms is None else deadline_ms,
        )
        latency_ms = (perf_counter() - began) * 1000.0
        return [BatchItem.from_proto(result, latency_ms) for result in answer.results]

    def stream(self, *, deadline_ms: float = build.STREAM_DEADLINE_MS, max_pending: int = 1024) -> Stream:
        """Open a stream of predictions; each answer is due `deadline_ms` after its send."""
        self._check_open()
        metadata = self._endpoint.metadata()
        return Stream(
            lambda outgoing: self._prediction.PredictStream(outgoing, metadata=metadata),
            self.target,
            max_pending,
            build.seconds(deadline_ms),
        )

    def list_models(
        self,
        symbol: str | None = None,
        timeframe: str | None = None,
        model_type: str | None = None,
        statuses: str | Iterable[str] = (),
        *,
        deadline_ms: float | None = None,
    ) -> ModelList:
        """List all models that match, newest first; the deadline is each page's."""
        request = build.list_request(symbol, timeframe, model_type, statuses)
        models: list[ModelInfo] = []
        while True:
            page = self._read(self._registry.ListModels, request, deadline_ms)
            models += [ModelInfo.from_proto(model) for model in page.models]
            if not page.next_page_token:
                return ModelList(models, tuple(page.unreadable_rows))
            request.page_token = page.next_page_token

    def get_model(self, model_id: str, *, deadline_ms: float | None = None) -> ModelDetails:
        """Return all that the registry knows of one model: features, schema hash, importances, meta.json."""
        request = registry_pb2.GetModelRequest(model_id=model_id)
        return ModelDetails.from_proto((self._read(self._registry.GetModel, request, deadline_ms)).details)

    def promote(
        self,
        models: str | Promotion | Iterable[str | Promotion],
        *,
        expected_production_model_id: str | None = None,
        reason: str = "",
        force: bool = False,
        request_id: str | None = None,
        deadline_ms: float | None = None,
    ) -> PromoteResult:
        """Put one model, or a basket of them, into production: all or none.

        `expected_production_model_id` (with one model; a basket takes `Promotion`s): Aborted unless just that
        model is in production now; "": unless none is. `force` goes past the gate and needs a `reason`.
        A `request_id` of your own makes a repeat of the whole call get the first answer.
        """
        request = build.promote_request(models, expected_production_model_id, reason, force, request_id)
        answer = self._write(self._registry.Promote, request, request.request_id, deadline_ms)
        return PromoteResult.from_proto(answer, request.request_id)

    def rollback(
        self,
        keys: Key | Iterable[Key],
        reason: str,
        request_id: str | None = None,
        *,
        deadline_ms: float | None = None,
    ) -> PromoteResult:
        """Take keys, (symbol, timeframe) or "BTCUSDT/15m", back to the model they had before: all or none."""
        request = build.rollback_request(keys, reason, request_id)
        answer = self._write(self._registry.Rollback, request, request.request_id, deadline_ms)
        return PromoteResult.from_proto(answer, request.request_id)

    def archive(
        self,
        model_ids: str | Iterable[str],
        reason: str,
        allow_unserved: bool = False,
        request_id: str | None = None,
        *,
        deadline_ms: float | None = None,
    ) -> PromoteResult:
        """Retire models: all or none. `allow_unserved` lets a key be left with nothing in production."""
        request = build.archive_request(model_ids, reason, allow_unserved, request_id)
        answer = self._write(self._registry.Archive, request, request.request_id, deadline_ms)
        return PromoteResult.from_proto(answer, request.request_id)

    def events(
        self,
        symbol: str | None = None,
        timeframe: str | None = None,
        model_id: str | None = None,
        *,
        limit: int | None = None,
        deadline_ms: float | None = None,
    ) -> Iterator[AuditEvent]:
        """Iterate the audit log, newest first, at most `limit` events; pages are fetched as needed."""
        request = build.events_request(symbol, timeframe, model_id, limit)
        return self._events(request, limit, deadline_ms)

    def status(self, *, deadline_ms: float | None = None) -> ServingStatus:
        """Return what the answering server serves, and what it could not load."""
        request = serving_status_pb2.GetServingStatusRequest()
        return ServingStatus.from_proto(
            (self._read(self._prediction.GetServingStatus, request, deadline_ms)).status
        )

    def watch_status(self, *, deadline_ms: float | None = None) -> Iterator[ServingStatus]:
        """Iterate the status now and after each change, until left or until the server ends (Unavailable)."""
        self._check_open()
        call = self._prediction.WatchServingStatus(
            serving_status_pb2.WatchServingStatusRequest(),
            timeout=None if deadline_ms is None else build.seconds(deadline_ms),
            metadata=self._endpoint.metadata(),
        )
        try:
            for answer in call:
                yield ServingStatus.from_proto(answer.status)
        except grpc.RpcError as error:
            raise from_rpc_error(error, where=self.target) from error
        finally:
            call.cancel()

    def wait_ready(self, deadline_ms: float = build.READ_DEADLINE_MS) -> None:
        """Wait until a server is connected; DeadlineExceeded where none is in time. No call needs this."""
        self._check_open()
        ready = grpc.channel_ready_future(self._channel)
        try:
            ready.result(timeout=build.seconds(deadline_ms))
        except grpc.FutureTimeoutError as error:
            raise DeadlineExceeded(f"no server at {self.target} within {deadline_ms:.0f} ms") from error
        finally:
            ready.cancel()

    def close(self) -> None:
        """Close the connections; calls and streams under way end with Cancelled. May be called twice."""
        self._closed = True
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _events(
        self, request: registry_pb2.ListEventsRequest, limit: int | None, deadline_ms: float | None
    ) -> Iterator[AuditEvent]:
        given = 0
        while True:
            page = self._read(self._registry.ListEvents, request, deadline_ms)
            for event in page.events:
                yield AuditEvent.from_proto(event)
                given += 1
                if given == limit:
                    return
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def _read(self, method: _Method[_Q, _A], request: _Q, deadline_ms: float | None) -> _A:
        return self._call(method, request, self.read_deadline_ms if deadline_ms is None else deadline_ms)

    def _write(
        self,
        method: _Method[_Q, _A],
        request: _Q,
        request_id: str,
        deadline_ms: float | None,
    ) -> _A:
        return self._call(
            method,
            request,
            self.write_deadline_ms if deadline_ms is None else deadline_ms,
            request_id,
            change=True,
        )

    def _call(
        self,
        method: _Method[_Q, _A],
        request: _Q,
        deadline_ms: float,
        request_id: str = "",
        *,
        change: bool = False,
    ) -> _A:
        self._check_open()
        try:
            return method(
                request, timeout=build.seconds(deadline_ms), metadata=self._endpoint.metadata(change=change)
            )
        except grpc.RpcError as error:
            raise from_rpc_error(error, request_id, self.target) from error

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the client is closed")

    def _open(self) -> grpc.Channel:
        reach = self._endpoint
        if reach.credentials is None:
            return grpc.insecure_channel(reach.target, reach.options)
        return grpc.secure_channel(reach.target, reach.credentials, reach.options)
