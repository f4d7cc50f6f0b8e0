"""AsyncSignalClient: calls to a signalserve server from an event loop; the twin of SignalClient."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
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
from .aio_stream import AsyncStream
from .channel import TlsLike, Token, endpoint
from .encode import Features, encode_predict
from .errors import Cancelled, DeadlineExceeded, from_rpc_error
from .registry_values import (
    AuditEvent,
    ModelDetails,
    ModelInfo,
    ModelList,
    PromoteResult,
)
from .requests import Key, PredictionRequest, Promotion
from .values import (
    BatchItem,
    Prediction,
    ServingStatus,
)

if TYPE_CHECKING:
    from signalserve.v1.prediction_service_pb2_grpc import PredictionServiceAsyncStub
    from signalserve.v1.registry_service_pb2_grpc import RegistryServiceAsyncStub

_Q = TypeVar("_Q")
_A = TypeVar("_A")

if TYPE_CHECKING:
    _Method: TypeAlias = grpc.aio.UnaryUnaryMultiCallable[_Q, _A]  # no generic at run time


class AsyncSignalClient:
    """SignalClient for asyncio, with the same arguments, values and errors; make it inside the running loop.

    ::

        async with AsyncSignalClient("localhost:50051") as client:
            prediction = await client.predict("BTCUSDT", "15m", {"rsi_14": 61.5, "atr_14": 0.8})
            async for event in client.events(limit=20):
                print(event.revision, event.action)
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
        self._prediction: PredictionServiceAsyncStub = prediction_service_pb2_grpc.PredictionServiceStub(
            self._channel
        )
        self._registry: RegistryServiceAsyncStub = registry_service_pb2_grpc.RegistryServiceStub(
            self._channel
        )

    @property
    def target(self) -> str:
        """The target as it was given."""
        return self._endpoint.target

    async def predict(
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
        answer = await self._call(
            self._prediction.Predict,
            request,
            self.deadline_ms if deadline_ms is None else deadline_ms,
            request.request_id,
        )
        return Prediction.from_proto(answer, (perf_counter() - began) * 1000.0)

    async def predict_batch(
        self, requests: Iterable[PredictionRequest], *, deadline_ms: float | None = None
    ) -> list[BatchItem]:
        """Score many keys in one message: one prediction or error a request, in their order."""
        request = build.batch_request(requests)
        began = perf_counter()
        answer = await self._call(
            self._prediction.PredictBatch,
            request,
            self.deadline_ms if deadline_ms is None else deadline_ms,
        )
        latency_ms = (perf_counter() - began) * 1000.0
        return [BatchItem.from_proto(result, latency_ms) for result in answer.results]

    def stream(
        self, *, deadline_ms: float = build.STREAM_DEADLINE_MS, max_pending: int = 1024
    ) -> AsyncStream:
        """Open a stream of predictions; each answer is due `deadline_ms` after its send."""
        self._check_open()
        return AsyncStream(
            self._prediction.PredictStream(metadata=self._endpoint.metadata()),
            self.target,
            max_pending,
            build.seconds(deadline_ms),
        )

    async def list_models(
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
            page = await self._read(self._registry.ListModels, request, deadline_ms)
            models += [ModelInfo.from_proto(model) for model in page.models]
            if not page.next_page_token:
                return ModelList(models, tuple(page.unreadable_rows))
            request.page_token = page.next_page_token

    async def get_model(self, model_id: str, *, deadline_ms: float | None = None) -> ModelDetails:
        """Return all that the registry knows of one model: features, schema hash, importances, meta.json."""
        request = registry_pb2.GetModelRequest(model_id=model_id)
        return ModelDetails.from_proto(
            (await self._read(self._registry.GetModel, request, deadline_ms)).details
        )

    async def promote(
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
        answer = await self._write(self._registry.Promote, request, request.request_id, deadline_ms)
        return PromoteResult.from_proto(answer, request.request_id)

    async def rollback(
        self,
        keys: Key | Iterable[Key],
        reason: str,
        request_id: str | None = None,
        *,
        deadline_ms: float | None = None,
    ) -> PromoteResult:
        """Take keys, (symbol, timeframe) or "BTCUSDT/15m", back to the model they had before: all or none."""
        request = build.rollback_request(keys, reason, request_id)
        answer = await self._write(self._registry.Rollback, request, request.request_id, deadline_ms)
        return PromoteResult.from_proto(answer, request.request_id)

    async def archive(
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
        answer = await self._write(self._registry.Archive, request, request.request_id, deadline_ms)
        return PromoteResult.from_proto(answer, request.request_id)

    def events(
        self,
        symbol: str | None = None,
        timeframe: str | None = None,
        model_id: str | None = None,
        *,
        limit: int | None = None,
        deadline_ms: float | None = None,
    ) -> AsyncIterator[AuditEvent]:
        """Iterate the audit log, newest first, at most `limit` events; pages are fetched as needed."""
        request = build.events_request(symbol, timeframe, model_id, limit)
        return self._events(request, limit, deadline_ms)

    async def status(self, *, deadline_ms: float | None = None) -> ServingStatus:
        """Return what the answering server serves, and what it could not load."""
        request = serving_status_pb2.GetServingStatusRequest()
        return ServingStatus.from_proto(
            (await self._read(self._prediction.GetServingStatus, request, deadline_ms)).status
        )

    async def watch_status(self, *, deadline_ms: float | None = None) -> AsyncIterator[ServingStatus]:
        """Iterate the status now and after each change, until left or until the server ends (Unavailable)."""
        self._check_open()
        call = self._prediction.WatchServingStatus(
            serving_status_pb2.WatchServingStatusRequest(),
            timeout=None if deadline_ms is None else build.seconds(deadline_ms),
            metadata=self._endpoint.metadata(),
        )
        try:
            async for answer in call:
                yield ServingStatus.from_proto(answer.status)
        except grpc.RpcError as error:
            raise from_rpc_error(error, where=self.target) from error
        except asyncio.CancelledError:
            self._raise_unless_task_is_cancelled()
            raise
        finally:
            call.cancel()

    async def wait_ready(self, deadline_ms: float = build.READ_DEADLINE_MS) -> None:
        """Wait until a server is connected; DeadlineExceeded where none is in time. No call needs this."""
        self._check_open()
        try:
            async with asyncio.timeout(build.seconds(deadline_ms)):
                await self._channel.channel_ready()
        except TimeoutError as error:
            raise DeadlineExceeded(f"no server at {self.target} within {deadline_ms:.0f} ms") from error

    async def close(self) -> None:
        """Close the connections; calls and streams under way end with Cancelled. May be called twice."""
        self._closed = True
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _events(
        self, request: registry_pb2.ListEventsRequest, limit: int | None, deadline_ms: float | None
    ) -> AsyncIterator[AuditEvent]:
        given = 0
        while True:
            page = await self._read(self._registry.ListEvents, request, deadline_ms)
            for event in page.events:
                yield AuditEvent.from_proto(event)
                given += 1
                if given == limit:
                    return
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def _read(self, method: _Method[_Q, _A], request: _Q, deadline_ms: float | None) -> _A:
        return await self._call(
            method, request, self.read_deadline_ms if deadline_ms is None else deadline_ms
        )

    async def _write(
        self,
        method: _Method[_Q, _A],
        request: _Q,
        request_id: str,
        deadline_ms: float | None,
    ) -> _A:
        return await self._call(
            method,
            request,
            self.write_deadline_ms if deadline_ms is None else deadline_ms,
            request_id,
            change=True,
        )

    async def _call(
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
            return await method(
                request, timeout=build.seconds(deadline_ms), metadata=self._endpoint.metadata(change=change)
            )
        except grpc.RpcError as error:
            raise from_rpc_error(error, request_id, self.target) from error
        except asyncio.CancelledError:
            self._raise_unless_task_is_cancelled(request_id)
            raise

    def _raise_unless_task_is_cancelled(self, request_id: str = "") -> None:
        task = asyncio.current_task()
        if task is None or not task.cancelling():  # the call was cancelled, by close() or by the server
            raise Cancelled(f"the call was cancelled [{self.target}]", request_id=request_id) from None

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the client is closed")

    def _open(self) -> grpc.aio.Channel:
        reach = self._endpoint
        if reach.credentials is None:
            return grpc.aio.insecure_channel(reach.target, reach.options)
        return grpc.aio.secure_channel(reach.target, reach.credentials, reach.options)
