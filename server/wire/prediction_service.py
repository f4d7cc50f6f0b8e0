"""PredictionService: scores, and what this server serves."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import grpc
from google.protobuf.message import Message

from signalserve import __version__
from signalserve.common.moments import utc_now
from signalserve.server.guard import Call, CallGuard, StreamCall
from signalserve.server.question import Answer
from signalserve.server.scorer import Scorer, most_parts
from signalserve.server.snapshot import ServingState
from signalserve.server.threads import Threads
from signalserve.server.watcher import RegistryWatcher
from signalserve.server.wire.handlers import refusal
from signalserve.server.wire.packing import (
    INLINE_BATCH_BYTES,
    INLINE_BYTES,
    batch_error,
    batch_items,
    batch_result,
    read_question,
    read_stream_request,
    response_bytes,
    stream_error,
    stream_result,
)
from signalserve.server.wire.status import serving_status
from signalserve.v1 import serving_status_pb2


class PredictionService:
    """The handlers, by their names on the wire; `server.wire.handlers` puts the guard around each of them."""

    takes_bytes = frozenset({"Predict", "PredictBatch", "PredictStream"})

    def __init__(
        self,
        scorer: Scorer,
        state: ServingState,
        watcher: RegistryWatcher,
        guard: CallGuard,
        warnings: Callable[[], Sequence[str]],
        worker: int = 0,
    ) -> None:
        """`warnings` gives what the status warns of beside the snapshot's own; `worker` is which one this is."""
        self._worker = worker
        self._scorer = scorer
        self._state = state
        self._watcher = watcher
        self._guard = guard
        self._warnings = warnings
        self._started = utc_now()
        self._version = __version__
        self._threads = Threads("status", 1)

    def close(self) -> None:
        """Let its thread go."""
        self._threads.close()

    def Predict(  # noqa: N802 - the name is the method's on the wire
        self, content: bytes, call: Call
    ) -> Awaitable[bytes]:
        """Score one model's rows."""
        # no coroutine of its own: this is the hot path
        if len(content) <= INLINE_BYTES:
            return self._scorer.answer(read_question(content), call.remaining(), response_bytes)
        return self._answer_large(content, call)

    async def _answer_large(self, content: bytes, call: Call) -> bytes:
        question = await self._scorer.prepare(read_question, content)
        return await self._scorer.answer(question, call.remaining(), response_bytes)

    async def PredictBatch(  # noqa: N802 - as above
        self, content: bytes, call: Call
    ) -> bytes:
        """Score many keys; each item for itself."""

        def give(answer: Answer) -> bytes:
            result = batch_result(answer)
            call.answered()
            return result

        def fail(error: Exception) -> bytes:
            return batch_error(refusal(call, error))

        large = len(content) > INLINE_BATCH_BYTES
        items = await self._scorer.prepare(batch_items, content) if large else batch_items(content)
        further = self._guard.take(most_parts(len(items)) - 1)
        try:
            results = await self._scorer.answer_each(
                items, call.remaining(), ask=read_question, give=give, fail=fail, parts=1 + further
            )
        finally:
            self._guard.end(further)
        return await self._scorer.prepare(b"".join, results) if large else b"".join(results)

    async def PredictStream(  # noqa: N802 - as above
        self, read: Callable[[], Awaitable[Any]], call: StreamCall
    ) -> AsyncIterator[bytes]:
        """Answer one request after the other, in their order."""
        while True:
            content = await call.wait_for(read())
            if content is None or content is grpc.aio.EOF:
                return
            sequence = 0
            try:
                self._guard.begin_item()
                try:
                    if len(content) <= INLINE_BYTES:
                        received = read_stream_request(content)
                    else:
                        received = await self._scorer.prepare(read_stream_request, content)
                    sequence = received.request.sequence
                    response = await self._scorer.answer(
                        received.question(), call.remaining(), response_bytes, of_stream=True
                    )
                finally:
                    self._guard.end()
                result = stream_result(sequence, response)
                call.answered()
            except Exception as error:  # noqa: BLE001 - an item's error is an answer; the stream goes on
                result = stream_error(sequence, refusal(call, error))
            yield result

    async def GetServingStatus(  # noqa: N802 - as above
        self, request: serving_status_pb2.GetServingStatusRequest, call: Call
    ) -> bytes:
        """What is served now."""
        del request, call
        return await self._threads.run(self._status, serving_status_pb2.GetServingStatusResponse)

    async def WatchServingStatus(  # noqa: N802 - as above
        self, request: serving_status_pb2.WatchServingStatusRequest, call: StreamCall
    ) -> AsyncIterator[bytes]:
        """What is served now, and again after each change."""
        del request
        seen = self._watcher.version
        while not call.ending:
            answer = await self._threads.run(self._status, serving_status_pb2.WatchServingStatusResponse)
            call.answered()
            yield answer
            change = await call.wait_for(self._watcher.wait_for_change(seen))
            if change is None:
                return
            seen = change

    def _status(self, response: Callable[..., Message]) -> bytes:
        """A response with the status, as bytes: of a thousand keys neither is made in a moment."""
        status = serving_status(
            self._state.snapshot,
            seen_revision=self._watcher.seen_revision,
            draining=self._guard.draining,
            started=self._started,
            version=self._version,
            now=time.time(),
            warnings=self._warnings(),
            registry_error=self._watcher.trouble,
            worker=self._worker,
        )
        return response(status=status).SerializeToString()
