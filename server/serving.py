"""The serving path's heart: a request becomes a prediction.

`server/servicers` -> here -> `server/resolver` -> `server/codec` -> a predictor.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from signalserve.config.settings import ServerSettings
from signalserve.server.codec import now_timestamp, out_of_range, read_rows, stale_bar
from signalserve.server.errors import LateError, NothingToServeError, RequestError, status_of
from signalserve.server.metrics import ServerMetrics
from signalserve.server.resolver import resolve
from signalserve.server.snapshot import ServedModel, ServingSnapshot
from signalserve.v1 import prediction_pb2

# below this many values a one-threaded answer is cheaper than handing the work to another thread
_INLINE_VALUES = 8_192

# a batch is cut no finer: below this the hand-over costs more than a second core gives
_SMALLEST_PART = 32
_CORES = min(4, os.cpu_count() or 1)

LoadById = Callable[[str], ServedModel]


class ServingState:
    """The present snapshot, and models that requests named.

    Only the watcher assigns `snapshot`; handlers take it once a call.
    """

    def __init__(
        self,
        settings: ServerSettings,
        load_by_id: LoadById,
        metrics: ServerMetrics,
        *,
        refuse_stale: bool = False,
    ) -> None:
        self.snapshot = ServingSnapshot()
        self._settings = settings
        self._load_by_id = load_by_id
        self._refuse_stale = refuse_stale
        self.metrics = metrics
        self._named: OrderedDict[str, ServedModel] = OrderedDict()
        self._named_lock = threading.Lock()
        self._loading: dict[str, threading.Lock] = {}
        self._pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="predict")

    def close(self) -> None:
        """Wait for the worker threads' present work and let them go."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def loaded_by_name(self) -> dict[str, ServedModel]:
        """The models that requests named and that are still loaded."""
        with self._named_lock:
            return dict(self._named)

    def forget(self, keep: Callable[[ServedModel], bool]) -> None:
        """Let go of named models that may not be served any more (deleted, or changed since)."""
        with self._named_lock:
            for model_id in [name for name, served in self._named.items() if not keep(served)]:
                del self._named[model_id]

    async def predict(
        self, request: prediction_pb2.PredictRequest, remaining: float | None
    ) -> prediction_pb2.PredictResponse:
        """Answer one request; heavy work goes to a worker thread.

        `remaining` is the time left in seconds, None for no deadline.

        Raises:
            ServingError, RegistryError, PredictorError: as `server.errors.status_of` maps them.
        """
        if remaining is not None and remaining <= 0:
            raise _late()
        started = time.perf_counter()
        snapshot = self.snapshot
        served = resolve(snapshot, request) or self._named_model(request.model_id)
        if served is not None and served.inline and len(request.values) <= _INLINE_VALUES:
            response = self._answer(snapshot, served, request)
        else:
            until = None if remaining is None else time.monotonic() + remaining
            response = await asyncio.get_running_loop().run_in_executor(
                self._pool, self._answer_late, snapshot, request, until
            )
        self.metrics.seconds.observe(time.perf_counter() - started)
        return response

    async def predict_batch(
        self, requests: Sequence[prediction_pb2.PredictRequest], remaining: float | None
    ) -> list[prediction_pb2.PredictBatchResult]:
        """Answer each request or say what is wrong with it; one snapshot answers all of them."""
        if remaining is not None and remaining <= 0:
            raise _late()
        if not requests:
            raise RequestError("NO_REQUESTS", "the batch holds no request", field="requests")
        limit = self._settings.max_batch_requests
        if len(requests) > limit:
            raise RequestError(
                "TOO_MANY_REQUESTS",
                f"{len(requests)} requests in one batch; the limit is {limit}",
                field="requests",
            )
        until = None if remaining is None else time.monotonic() + remaining
        snapshot = self.snapshot

        def answer(part: Sequence[prediction_pb2.PredictRequest]) -> list[prediction_pb2.PredictBatchResult]:
            return [self._batch_item(snapshot, request, until) for request in part]

        loop = asyncio.get_running_loop()
        parts = await asyncio.gather(
            *(loop.run_in_executor(self._pool, answer, part) for part in _parts(requests))
        )
        return [result for part in parts for result in part]

    def _batch_item(
        self, snapshot: ServingSnapshot, request: prediction_pb2.PredictRequest, until: float | None
    ) -> prediction_pb2.PredictBatchResult:
        try:
            return prediction_pb2.PredictBatchResult(response=self._answer_late(snapshot, request, until))
        except Exception as error:  # noqa: BLE001 - one bad item fails no other
            status = status_of(error)
            self.metrics.refused(status)
            return prediction_pb2.PredictBatchResult(error=status)

    def _answer_late(
        self, snapshot: ServingSnapshot, request: prediction_pb2.PredictRequest, until: float | None
    ) -> prediction_pb2.PredictResponse:
        if until is not None and time.monotonic() >= until:
            raise _late()
        served = resolve(snapshot, request) or self._load_named(request.model_id)
        return self._answer(snapshot, served, request)

    def _answer(
        self, snapshot: ServingSnapshot, served: ServedModel, request: prediction_pb2.PredictRequest
    ) -> prediction_pb2.PredictResponse:
        now = time.time()
        stale = served.is_stale(now)
        if stale and self._refuse_stale and not request.model_id:
            raise _stale(served)
        predictor = served.predictor
        matrix = read_rows(request, predictor, self._settings.max_rows)
        scores = predictor.predict(matrix)
        response = prediction_pb2.PredictResponse(
            scores=scores.tolist(),
            model_id=served.model_id,
            model_digest=predictor.digest,
            registry_revision=snapshot.revision,
            schema_hash=predictor.schema_hash,
            served_time=now_timestamp(),
            sequence=request.sequence,
        )
        factor = self._settings.stale_bar_factor
        if (
            factor is not None
            and request.HasField("event_time")
            and stale_bar(request.event_time, request.timeframe, factor, now)
        ):
            response.flags.append(prediction_pb2.PREDICTION_FLAG_STALE_BAR)
        if stale:
            response.flags.append(prediction_pb2.PREDICTION_FLAG_STALE_MODEL)
        if out_of_range(matrix, predictor):
            response.flags.append(prediction_pb2.PREDICTION_FLAG_OUT_OF_RANGE)
        self.metrics.answers.inc()
        return response

    def _named_model(self, model_id: str) -> ServedModel | None:
        with self._named_lock:
            served = self._named.get(model_id)
            if served is not None:
                self._named.move_to_end(model_id)
            return served

    def _load_named(self, model_id: str) -> ServedModel:
        """Load a model that a request named, once for all who wait for it."""
        with self._named_lock:
            turn = self._loading.setdefault(model_id, threading.Lock())
        try:
            with turn:
                served = self._named_model(model_id)
                if served is None:
                    served = self._load_by_id(model_id)
                    with self._named_lock:
                        self._named[model_id] = served
                        while len(self._named) > self._settings.max_pinned_models:
                            self._named.popitem(last=False)
                return served
        finally:
            with self._named_lock:
                self._loading.pop(model_id, None)


def _parts(
    requests: Sequence[prediction_pb2.PredictRequest],
) -> list[Sequence[prediction_pb2.PredictRequest]]:
    """A batch cut for the cores: ONNX Runtime lets other threads run while it computes."""
    count = max(1, min(_CORES, len(requests) // _SMALLEST_PART))
    size = -(-len(requests) // count)
    return [requests[start : start + size] for start in range(0, len(requests), size)]


def _stale(served: ServedModel) -> NothingToServeError:
    since = datetime.fromtimestamp(served.stale_at or 0.0, UTC)
    return NothingToServeError(
        "MODEL_STALE",
        f"{served.model_id} of {served.key} is older than ml.max_model_age since {since:%Y-%m-%d %H:%M}Z and "
        "ml.stale_models says refuse; train and promote a newer one",
        metadata={"model_id": served.model_id, "stale_since": since.isoformat()},
    )


def _late() -> LateError:
    return LateError("DEADLINE_GONE", "the deadline was gone before the work began; nothing was computed")
