"""The serving path's heart: a question becomes an answer.

`server/wire` -> here -> `server/resolver` -> `server/rows` -> a predictor.

1. One snapshot answers a call, with all its items: the reference is taken once.
2. A deadline that has gone costs no work; it is looked at when a call comes and again when a thread takes it up.
3. What takes long leaves the event loop: big matrices, slow models, batches. A model that must be loaded first takes no
   thread that scores.
4. What the asker makes of an answer (`give`) is made where the scores were computed, for the same reason.
5. An item of a batch fails alone. A call that was cancelled computes nothing more.
6. A revision that is asked for is waited for by a call or a stream's item; an item of a batch that is behind fails.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TypeVar

from signalserve.common.key import Key
from signalserve.server.errors import BehindError, LateError, NothingToServeError, RequestError
from signalserve.server.limits import ScoringLimits
from signalserve.server.named import NamedModels
from signalserve.server.question import Answer, Flag, Question
from signalserve.server.resolver import resolve
from signalserve.server.rows import bar_flags, out_of_range, read_rows
from signalserve.server.snapshot import ServedModel, ServingSnapshot, ServingState

# below this many values a one-threaded answer is cheaper than handing the work to another thread
_INLINE_VALUES = 8_192

# a batch is cut no finer: below this the hand-over costs more than a second core gives
_SMALLEST_PART = 32
_CORES = min(4, os.cpu_count() or 1)

# what a wait for a registry revision leaves of the deadline, for the answer itself
_TIME_TO_ANSWER = 0.02

# models that the items of one batch name are loaded so many at a time
_NAMED_AT_ONCE = 4

Item = TypeVar("Item")
Given = TypeVar("Given")


class Scorer:
    """Answers questions from the present snapshot and from the models that requests named."""

    def __init__(
        self,
        state: ServingState,
        named: NamedModels,
        limits: ScoringLimits,
        observe: Callable[[float], None],
        reach: Callable[[int, float | None, float, Collection[Key]], Awaitable[ServingSnapshot]],
    ) -> None:
        """What it is made of.

        `observe` gets the seconds that each answer took, a wait for a thread included. `reach` is
        `RegistryWatcher.wait_for_revision`.
        """
        self._state = state
        self._named = named
        self._limits = limits
        self._observe = observe
        self._reach = reach
        self._threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="predict")

    def close(self) -> None:
        """Wait for the worker threads' present work and let them go."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    async def answer(
        self, question: Question, remaining: float | None, give: Callable[[Answer], Given]
    ) -> Given:
        """What `give` makes of the answer; heavy work goes to a worker thread.

        `remaining` is the time left in seconds, None for no deadline.

        Raises:
            ServingError, RegistryError, PredictorError: there is no answer; the text says why.
        """
        _check_time(remaining)
        started = time.perf_counter()
        snapshot = self._state.snapshot
        if question.min_revision > max(_revision(snapshot, question), 0):
            keys = () if question.model_id else (question.key,)
            snapshot = await self._reach(question.min_revision, remaining, _TIME_TO_ANSWER, keys)
        _check_revision(snapshot, question)
        served = resolve(snapshot, question) or self._named.get(question.model_id)
        until = _until(remaining)
        if served is None:
            served = await self._named.load(question.model_id)
        if served.inline and len(question.values) <= _INLINE_VALUES:
            given = give(self._score(snapshot, served, question))
        else:
            given = await asyncio.get_running_loop().run_in_executor(
                self._threads, self._work, snapshot, question, served, until, give
            )
        self._observe(time.perf_counter() - started)
        return given

    async def answer_each(
        self,
        items: Sequence[Item],
        remaining: float | None,
        *,
        ask: Callable[[Item], Question],
        give: Callable[[Answer], Given],
        fail: Callable[[Exception], Given],
    ) -> list[Given]:
        """For each item what `give` makes of its answer, or `fail` of its error, in the items' order.

        The three are called in worker threads.

        Raises:
            RequestError: there is no item, or there are too many.
            LateError: the deadline had gone.
        """
        _check_time(remaining)
        if not items:
            raise RequestError("NO_REQUESTS", "the batch holds no request", field="requests")
        limit = self._limits.max_batch_requests
        if len(items) > limit:
            raise RequestError(
                "TOO_MANY_REQUESTS",
                f"{len(items)} requests in one batch; the limit is {limit}",
                field="requests",
            )
        until = _until(remaining)
        snapshot = self._state.snapshot
        given_up = threading.Event()
        # by the model that a request named and nobody has loaded yet: loading takes no thread that scores
        unloaded: dict[str, list[tuple[int, Question]]] = {}
        results: dict[int, Given] = {}

        def answer(place: int, question: Question, served: ServedModel | None = None) -> None:
            try:
                results[place] = self._work(snapshot, question, served, until, give)
            except _NotLoadedError:
                unloaded.setdefault(question.model_id, []).append((place, question))
            except Exception as error:  # noqa: BLE001 - one bad item fails no other
                results[place] = fail(error)

        def work(part: Sequence[tuple[int, Item]]) -> None:
            for place, item in part:
                if given_up.is_set():
                    break
                try:
                    question = ask(item)
                except Exception as error:  # noqa: BLE001 - as above
                    results[place] = fail(error)
                else:
                    answer(place, question)

        def work_named(served: ServedModel, part: Sequence[tuple[int, Question]]) -> None:
            for place, question in part:
                if given_up.is_set():
                    break
                answer(place, question, served)

        loop = asyncio.get_running_loop()
        turns = asyncio.Semaphore(_NAMED_AT_ONCE)

        async def load_and_work(model_id: str, part: Sequence[tuple[int, Question]]) -> None:
            async with turns:
                try:
                    served = await self._named.load(model_id)
                except Exception as error:  # noqa: BLE001 - as above
                    results.update({place: fail(error) for place, _ in part})
                else:
                    await loop.run_in_executor(self._threads, work_named, served, part)

        try:
            await asyncio.gather(
                *(loop.run_in_executor(self._threads, work, part) for part in _parts(list(enumerate(items))))
            )
            await asyncio.gather(*(load_and_work(model_id, part) for model_id, part in unloaded.items()))
        except asyncio.CancelledError:
            given_up.set()
            raise
        return [results[place] for place in range(len(items))]

    def _work(
        self,
        snapshot: ServingSnapshot,
        question: Question,
        served: ServedModel | None,
        until: float | None,
        give: Callable[[Answer], Given],
    ) -> Given:
        """One answer in a worker thread; `served` where the model that was named is known already."""
        if until is not None and time.monotonic() >= until:
            raise _late()
        _check_revision(snapshot, question)
        if served is None:
            served = resolve(snapshot, question) or self._named.get(question.model_id)
        if served is None:
            raise _NotLoadedError
        return give(self._score(snapshot, served, question))

    def _score(self, snapshot: ServingSnapshot, served: ServedModel, question: Question) -> Answer:
        now = time.time()
        stale = served.is_stale(now)
        limits = self._limits
        if stale and limits.refuse_stale and not question.model_id:
            raise _stale(served)
        predictor = served.predictor
        matrix = read_rows(question, predictor, limits)
        scores = predictor.predict(matrix)
        served_ns = time.time_ns()
        flags: tuple[Flag, ...] = ()
        if question.event_time is not None:
            flags = bar_flags(question.event_time, question.key.timeframe, limits.stale_bar_factor, now)
        if stale:
            flags += (Flag.STALE_MODEL,)
        if served.key in snapshot.not_current and not question.model_id:
            flags += (Flag.NOT_CURRENT,)
        outside = out_of_range(matrix, predictor)
        if outside:
            flags += (Flag.OUT_OF_RANGE,)
        return Answer(
            scores,
            served.model_id,
            predictor.digest,
            predictor.schema_hash,
            _revision(snapshot, question),
            served_ns,
            flags,
            question.sequence,
            predictor.output,
            predictor.feature_set,
            outside,
        )


class _NotLoadedError(Exception):
    """The model that an item of a batch names must be loaded first."""


def _parts(items: Sequence[Item]) -> list[Sequence[Item]]:
    """A batch cut for the cores: ONNX Runtime lets other threads run while it computes."""
    count = max(1, min(_CORES, len(items) // _SMALLEST_PART))
    size = -(-len(items) // count)
    return [items[start : start + size] for start in range(0, len(items), size)]


def _until(remaining: float | None) -> float | None:
    return None if remaining is None else time.monotonic() + remaining


def _check_time(remaining: float | None) -> None:
    if remaining is not None and remaining <= 0:
        raise _late()


def _revision(snapshot: ServingSnapshot, question: Question) -> int:
    """The registry revision that an answer would be of."""
    return snapshot.revision if question.model_id else snapshot.revision_of(question.key)


def _check_revision(snapshot: ServingSnapshot, question: Question) -> None:
    asked = question.min_revision
    if not asked:
        return
    served = _revision(snapshot, question)
    if asked > served:
        raise BehindError(
            "BEHIND",
            f"revision {asked} of the registry is asked for, and this server serves {max(served, 0)}",
            metadata={"registry_revision": str(max(served, 0)), "asked": str(asked)},
        )
    if not question.model_id and (wanted := snapshot.not_current.get(question.key)):
        raise BehindError(
            "BEHIND",
            f"{wanted} of {question.key} could not be loaded here, so what this server serves is older than asked for",
            metadata={"model_id": wanted, "asked": str(asked)},
        )


def _late() -> LateError:
    return LateError("DEADLINE_GONE", "the deadline was gone before the work began; nothing was computed")


def _stale(served: ServedModel) -> NothingToServeError:
    since = datetime.fromtimestamp(served.stale_at or 0.0, UTC)
    return NothingToServeError(
        "MODEL_STALE",
        f"{served.model_id} of {served.key} is older than ml.max_model_age since {since:%Y-%m-%d %H:%M}Z and "
        "ml.stale_models says refuse; train and promote a newer one",
        metadata={"model_id": served.model_id, "stale_since": since.isoformat()},
    )
