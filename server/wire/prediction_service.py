"""PredictionService: scores, and what this server serves."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import grpc

from signalserve import __version__
from signalserve.common.moments import utc_now
from signalserve.server.guard import Call, CallGuard, StreamCall
from signalserve.server.question import Answer
from signalserve.server.scorer import Scorer, most_parts
from signalserve.server.snapshot import ServingState
from signalserve.server.watcher import RegistryWatcher
from signalserve.server.wire.handlers import refusal
from signalserve.server.wire.prediction import question_of, response_of
from signalserve.server.wire.status import serving_status
from signalserve.v1 import prediction_pb2, serving_status_pb2


class PredictionService:
    """The handlers, by their names on the wire; `server.wire.handlers` puts the guard around each of them."""

    def __init__(
        self,
        scorer: Scorer,
        state: ServingState,
        watcher: RegistryWatcher,
        guard: CallGuard,
        warnings: Callable[[], Sequence[str]],
    ) -> None:
        """`warnings` gives what the status warns of beside the snapshot's own."""
        self._scorer = scorer
        self._state = state
        self._watcher = watcher
        self._guard = guard
        self._warnings = warnings
        self._started = utc_now()
        self._version = __version__

    def Predict(  # noqa: N802 - the name is the method's on the wire
        self, request: prediction_pb2.PredictRequest, call: Call
    ) -> Awaitable[prediction_pb2.PredictResponse]:
        """Score one model's rows."""
        # no coroutine of its own: this is the hot path
        return self._scorer.answer(question_of(request), call.remaining(), response_of)

    async def PredictBatch(  # noqa: N802 - as above
        self, request: prediction_pb2.PredictBatchRequest, call: Call
    ) -> prediction_pb2.PredictBatchResponse:
        """Score many keys; each item for itself."""

        def give(answer: Answer) -> prediction_pb2.PredictBatchResult:
            result = prediction_pb2.PredictBatchResult(response=response_of(answer))
            call.answered()
            return result

        def fail(error: Exception) -> prediction_pb2.PredictBatchResult:
            return prediction_pb2.PredictBatchResult(error=refusal(call, error))

        further = self._guard.take(most_parts(len(request.requests)) - 1)
        try:
            results = await self._scorer.answer_each(
                request.requests,
                call.remaining(),
                ask=question_of,
                give=give,
                fail=fail,
                parts=1 + further,
            )
        finally:
            self._guard.end(further)
        return prediction_pb2.PredictBatchResponse(results=results)

    async def PredictStream(  # noqa: N802 - as above
        self, read: Callable[[], Awaitable[Any]], call: StreamCall
    ) -> AsyncIterator[prediction_pb2.PredictStreamResponse]:
        """Answer one request after the other, in their order."""
        while True:
            message = await call.wait_for(read())
            if message is None or message is grpc.aio.EOF:
                return
            request = message.request
            result = prediction_pb2.PredictStreamResponse(sequence=request.sequence)
            try:
                self._guard.begin_item()
                try:
                    response = await self._scorer.answer(
                        question_of(request), call.remaining(), response_of, of_stream=True
                    )
                finally:
                    self._guard.end()
                result.response.CopyFrom(response)
                call.answered()
            except Exception as error:  # noqa: BLE001 - an item's error is an answer; the stream goes on
                result.error.CopyFrom(refusal(call, error))
            yield result

    async def GetServingStatus(  # noqa: N802 - as above
        self, request: serving_status_pb2.GetServingStatusRequest, call: Call
    ) -> serving_status_pb2.GetServingStatusResponse:
        """What is served now."""
        del request, call
        return serving_status_pb2.GetServingStatusResponse(status=self._status())

    async def WatchServingStatus(  # noqa: N802 - as above
        self, request: serving_status_pb2.WatchServingStatusRequest, call: StreamCall
    ) -> AsyncIterator[serving_status_pb2.WatchServingStatusResponse]:
        """What is served now, and again after each change."""
        del request
        seen = self._watcher.version
        while not call.ending:
            answer = serving_status_pb2.WatchServingStatusResponse(status=self._status())
            call.answered()
            yield answer
            change = await call.wait_for(self._watcher.wait_for_change(seen))
            if change is None:
                return
            seen = change

    def _status(self) -> serving_status_pb2.ServingStatus:
        return serving_status(
            self._state.snapshot,
            seen_revision=self._watcher.seen_revision,
            draining=self._guard.draining,
            started=self._started,
            version=self._version,
            now=time.time(),
            warnings=self._warnings(),
            registry_error=self._watcher.trouble,
        )
