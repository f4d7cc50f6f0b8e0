"""PredictionService: scores, and what this server serves."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from signalserve.server.errors import status_of
from signalserve.server.guard import CallGuard, OpenStream
from signalserve.server.serving import ServingState
from signalserve.server.watcher import RegistryWatcher
from signalserve.v1 import prediction_pb2, prediction_service_pb2_grpc, serving_status_pb2

Context = grpc.aio.ServicerContext[Any, Any]


class PredictionServicer(prediction_service_pb2_grpc.PredictionServiceServicer):
    """The handlers; `server.guard` stands around each of them."""

    def __init__(self, state: ServingState, watcher: RegistryWatcher, guard: CallGuard) -> None:
        self._state = state
        self._watcher = watcher
        self._guard = guard
        self._started = datetime.now(UTC)
        self._version = version("signalserve")

    async def Predict(  # noqa: N802 - the name is the method's on the wire
        self, request: prediction_pb2.PredictRequest, context: Context
    ) -> prediction_pb2.PredictResponse:
        """Score one model's rows."""
        return await self._state.predict(request, context.time_remaining())

    async def PredictBatch(  # noqa: N802 - as above
        self, request: prediction_pb2.PredictBatchRequest, context: Context
    ) -> prediction_pb2.PredictBatchResponse:
        """Score many keys; each item for itself."""
        results = await self._state.predict_batch(request.requests, context.time_remaining())
        return prediction_pb2.PredictBatchResponse(results=results)

    async def PredictStream(  # type: ignore[override]  # noqa: N802 - the guard hands in the open stream
        self, _requests: object, context: Context, stream: OpenStream
    ) -> AsyncIterator[prediction_pb2.PredictStreamResponse]:
        """Answer one request after the other, in their order."""
        while True:
            message = await stream.wait_for(context.read())
            if message is None or message is grpc.aio.EOF:
                return
            request = message.request
            answer = prediction_pb2.PredictStreamResponse(sequence=request.sequence)
            try:
                answer.response.CopyFrom(await self._state.predict(request, context.time_remaining()))
            except Exception as error:  # noqa: BLE001 - an item's error is an answer; the stream goes on
                answer.error.CopyFrom(status_of(error))
                self._state.metrics.refused(answer.error)
            yield answer

    async def GetServingStatus(  # noqa: N802 - as above
        self, request: serving_status_pb2.GetServingStatusRequest, context: Context
    ) -> serving_status_pb2.GetServingStatusResponse:
        """What is served now."""
        del request, context
        return serving_status_pb2.GetServingStatusResponse(status=self._status())

    async def WatchServingStatus(  # type: ignore[override]  # noqa: N802 - as for PredictStream
        self, request: serving_status_pb2.WatchServingStatusRequest, context: Context, stream: OpenStream
    ) -> AsyncIterator[serving_status_pb2.WatchServingStatusResponse]:
        """What is served now, and again after each change."""
        del request, context
        seen = self._watcher.version
        while not stream.draining:
            yield serving_status_pb2.WatchServingStatusResponse(status=self._status())
            change = await stream.wait_for(self._watcher.wait_for_change(seen))
            if change is None:
                return
            seen = change

    def _status(self) -> serving_status_pb2.ServingStatus:
        snapshot = self._state.snapshot
        started = Timestamp()
        started.FromDatetime(self._started)
        status = serving_status_pb2.ServingStatus(
            registry_revision=max(snapshot.revision, 0),
            seen_revision=max(self._watcher.seen_revision, snapshot.revision, 0),
            ready=snapshot.complete,
            draining=self._guard.draining,
            start_time=started,
            version=self._version,
            process_id=os.getpid(),
            warnings=snapshot.warnings,
        )
        now = time.time()
        for key, served in sorted(snapshot.by_key.items()):
            model = status.models.add(
                symbol=key.symbol,
                timeframe=key.timeframe,
                model_id=served.model_id,
                model_digest=served.predictor.digest,
                schema_hash=served.predictor.schema_hash,
                engine=served.predictor.engine,
                engine_reason=served.predictor.engine_reason,
                pinned=served.pinned,
                stale=served.is_stale(now),
            )
            if served.stale_at is not None:
                model.stale_time.FromSeconds(int(served.stale_at))
        for failure in snapshot.failures:
            status.load_errors.add(
                symbol=failure.key.symbol,
                timeframe=failure.key.timeframe,
                model_id=failure.model_id,
                message=failure.message,
                registry_revision=failure.revision,
            )
        return status
