"""AsyncSignalClient: calls to a signalserve server from an event loop; the twin of SignalClient."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterable
from datetime import datetime
from time import perf_counter
from types import TracebackType
from typing import Self, TypeVar, cast

import grpc

from ..v1.registry_pb2 import ListEventsRequest, ListEventsResponse
from . import calls
from . import requests as build
from .aio_stream import AsyncStream
from .base import BaseClient
from .batch import Batch
from .call import Call
from .encode import Features
from .errors import Cancelled, ResourceExhausted, SignalServeError, from_rpc_error
from .health import PAUSE, Health, ReadyWait
from .pages import Pages
from .parts import Parts
from .registry_values import AuditEvent, ModelDetails, ModelInfo, ModelList, PromoteResult
from .requests import Key, PredictionRequest, Promotion
from .values import BatchItem, Prediction, ServingStatus

Q = TypeVar("Q")
A = TypeVar("A")
V = TypeVar("V")


class AsyncSignalClient(BaseClient[grpc.aio.Channel]):
    """SignalClient for asyncio, with the same arguments, values and errors; make it inside the running loop.

    ::

        async with AsyncSignalClient("localhost:50051") as client:
            prediction = await client.predict("BTCUSDT", "15m", {"rsi_14": 61.5, "atr_14": 0.8})
            async for event in client.events(limit=20):
                print(event.revision, event.action)
    """

    async def predict(
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
        deadline_ms: float | None = None,
    ) -> Prediction:
        """Score 1..n rows with the key's model, or with `model_id`.

        `features`: a mapping, a list of mappings, a DataFrame, or an array with `feature_names` or
        `schema_hash` (see `client.encode`). `event_time`: the close time of the bar, with its timezone.
        `feature_set`: which definition computed the features, e.g. "core@1"; FailedPrecondition where it is not the
        model's. `min_registry_revision`: answer from this revision of the registry or a later one, or Unavailable.

        A matrix of more than `max_message_mb` goes in parts, one after the other within the one deadline; all are
        answered by the model that answered the first, or the call fails (see `client.parts`).
        """
        parts = calls.predict(
            symbol,
            timeframe,
            features,
            model_id,
            feature_names,
            schema_hash,
            event_time,
            request_id,
            feature_set,
            min_registry_revision,
            self._most_bytes,
        )
        return await self._run_parts(parts, deadline_ms)

    async def predict_batch(
        self, requests: Iterable[PredictionRequest], *, deadline_ms: float | None = None
    ) -> list[BatchItem]:
        """Score many keys in one message: one prediction or error a request, in their order.

        Items that a full server asks to send again (`retry_after`) are, within the deadline, and three times at most.
        """
        return await self._run_batch(calls.predict_batch(requests, self._most_bytes), deadline_ms)

    def stream(
        self,
        *,
        deadline_ms: float = build.STREAM_DEADLINE_MS,
        max_pending: int = 1024,
        reconnect: bool = False,
    ) -> AsyncStream:
        """Open a stream of predictions; each answer is due `deadline_ms` after its send.

        `reconnect`: where the server goes, the stream goes on over another call (see `Stream`).
        """
        exchange = self._exchange(max_pending, deadline_ms, reconnect=reconnect)
        return AsyncStream(self._stream_opening(reconnect=reconnect), exchange)

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
        pages = calls.list_models(symbol, timeframe, model_type, statuses)
        models: list[ModelInfo] = []
        unreadable: tuple[str, ...] = ()
        while pages.more:
            page = await self._run(pages.call, deadline_ms)
            models += pages.take(page)
            unreadable = tuple(page.unreadable_rows)
        return ModelList(models, unreadable)

    async def get_model(self, model_id: str, *, deadline_ms: float | None = None) -> ModelDetails:
        """Return all that the registry knows of one model: features, schema hash, importances, meta.json."""
        return await self._run(calls.get_model(model_id), deadline_ms)

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
        call = calls.promote(models, expected_production_model_id, reason, force, request_id)
        return await self._run(call, deadline_ms)

    async def rollback(
        self,
        keys: Key | Iterable[Key],
        reason: str,
        request_id: str | None = None,
        expected_production_model_id: str | Iterable[str] | None = None,
        *,
        deadline_ms: float | None = None,
    ) -> PromoteResult:
        """Take keys, (symbol, timeframe) or "BTCUSDT/15m", back to the model they had before: all or none.

        `expected_production_model_id`: what must be in production now, one a key in their order; Aborted otherwise.
        """
        call = calls.rollback(keys, reason, request_id, expected_production_model_id)
        return await self._run(call, deadline_ms)

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
        call = calls.archive(model_ids, reason, allow_unserved, request_id)
        return await self._run(call, deadline_ms)

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
        return self._walk(calls.events(symbol, timeframe, model_id, limit), deadline_ms)

    async def status(self, *, deadline_ms: float | None = None) -> ServingStatus:
        """Return what the answering server serves, and what it could not load."""
        return await self._run(calls.status(), deadline_ms)

    async def watch_status(self, *, deadline_ms: float | None = None) -> AsyncIterator[ServingStatus]:
        """Iterate the status now and after each change, until left or until the server ends (Unavailable)."""
        stubs = self._present()
        call = self._start_watch(stubs, deadline_ms)
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

    async def health(self, service: str = "", *, deadline_ms: float | None = None) -> Health:
        """Ask for the health: of the whole server, or of a service or a key ("BTCUSDT/15m") that it tells apart.

        NotFound where it knows no such service; Unavailable where no server is there.
        """
        return await self._run(calls.health(service), deadline_ms)

    async def wait_ready(self, deadline_ms: float = build.READ_DEADLINE_MS, *, service: str = "") -> None:
        """Wait until a server says that it is SERVING; DeadlineExceeded where none does in time. No call needs this.

        `service`: "" for the whole server, or a service or a key ("BTCUSDT/15m") that it tells apart.
        """
        wait = ReadyWait(self.target, service, deadline_ms)
        while True:
            stubs = self._present()
            call = self._start_health_watch(stubs, service, wait.left())
            try:
                async for answer in call:
                    if wait.serving(answer):
                        return
            except grpc.RpcError as error:
                wait.broke(from_rpc_error(error, where=self.target), closed=self._closed)
            except asyncio.CancelledError:
                self._raise_unless_task_is_cancelled()
                raise
            finally:
                call.cancel()
            await asyncio.sleep(PAUSE)

    async def close(self) -> None:
        """Close the connections; calls and streams under way end with Cancelled. May be called twice."""
        with self._renewing:  # none is made afterwards
            self._closed = True
        for channel in (*self._superseded, self._channel):
            await channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _walk(
        self, pages: Pages[ListEventsRequest, ListEventsResponse, V], deadline_ms: float | None
    ) -> AsyncIterator[V]:
        while pages.more:
            for value in pages.take(await self._run(pages.call, deadline_ms)):
                yield value

    async def _run_parts(self, parts: Parts, deadline_ms: float | None) -> Prediction:
        limit = self.deadline_ms if deadline_ms is None else deadline_ms
        began, left = perf_counter(), limit
        while True:
            try:
                whole = parts.take(await self._run(parts.call, left))
            except SignalServeError as error:
                if not parts.smaller(error):
                    raise parts.of_the_whole(error) from error.__cause__
            else:
                if whole is not None:
                    return whole
            left = limit - (perf_counter() - began) * 1000.0
            self._refuse_past(parts.call, left, limit)

    async def _run_batch(self, batch: Batch, deadline_ms: float | None) -> list[BatchItem]:
        began, left, tries = perf_counter(), deadline_ms, 0
        while True:
            tries += 1
            try:
                refusal = batch.take(await self._run(batch.call, left))
            except SignalServeError:
                if not batch.items:
                    raise
                return batch.items
            took_ms = (perf_counter() - began) * 1000.0
            pause = self._retry_pause(refusal, batch.call, deadline_ms, took_ms, tries)
            if pause is None:
                return batch.items
            await asyncio.sleep(pause)
            left = self._left_ms(batch.call, deadline_ms, (perf_counter() - began) * 1000.0)

    async def _run(self, call: Call[Q, A, V], deadline_ms: float | None) -> V:
        began, left, tries = perf_counter(), deadline_ms, 0
        while True:
            tries += 1
            try:
                return await self._once(call, left)
            except ResourceExhausted as error:
                took_ms = (perf_counter() - began) * 1000.0
                pause = self._retry_pause(error, call, deadline_ms, took_ms, tries)
                if pause is None:
                    raise
            await asyncio.sleep(pause)
            left = self._left_ms(call, deadline_ms, (perf_counter() - began) * 1000.0)

    async def _once(self, call: Call[Q, A, V], deadline_ms: float | None) -> V:
        began = perf_counter()
        self._refuse_past(call, deadline_ms)
        stubs = self._present()
        try:
            # the stubs are typed for threads; on this channel they give what is awaited
            answer = await cast("Awaitable[A]", self._start(stubs, call, deadline_ms))
        except grpc.RpcError as error:
            raise from_rpc_error(error, call.request_id, self.target) from error
        except asyncio.CancelledError:
            self._raise_unless_task_is_cancelled(call.request_id)
            raise
        took_ms = (perf_counter() - began) * 1000.0
        self._note_answer(call, deadline_ms, took_ms)
        return call.value(answer, took_ms)

    def _raise_unless_task_is_cancelled(self, request_id: str = "") -> None:
        task = asyncio.current_task()
        if task is None or not task.cancelling():  # the call was cancelled, by close() or by the server
            raise Cancelled(f"the call was cancelled [{self.target}]", request_id=request_id) from None

    def _open(self) -> grpc.aio.Channel:
        reach = self._endpoint
        if reach.tls is None:
            return grpc.aio.insecure_channel(reach.target, reach.options)
        return grpc.aio.secure_channel(reach.target, reach.tls.credentials, reach.options)
