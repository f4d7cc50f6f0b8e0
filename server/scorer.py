"""The serving path's heart: a question becomes an answer.

`server/wire` -> here -> `server/resolver` -> `server/rows` -> a predictor.

1. One snapshot answers a call, with all its items: the reference is taken once.
2. A deadline that has gone costs no work; it is looked at when a call comes and again when a thread takes it up.
3. What takes long leaves the event loop: many rows, slow models, batches, and what has to be done with a large message
   beforehand. A model that must be loaded first takes no thread that scores.
4. What the asker makes of an answer (`give`) is made where the scores were computed, for the same reason.
5. An item of a batch fails alone. A call that was cancelled computes nothing more.
   Calls, items of streams, batches, and large messages have threads of their own each, so that none waits behind
   another kind; and a batch lets others go first after every slice of time.
6. A revision that is asked for is waited for by a call; an item of a batch or of a stream that is behind fails.
"""

from __future__ import annotations

import asyncio
import math
import os
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from typing import Any, TypeVar

from signalserve.common.key import Key
from signalserve.predictors.errors import BrokenScoresError, NonFiniteScoreError
from signalserve.server.deadline import until
from signalserve.server.errors import (
    BehindError,
    BrokenAnswerError,
    LateError,
    LoadTimeoutError,
    NothingToServeError,
    OverloadedError,
    RequestError,
)
from signalserve.server.limits import ScoringLimits
from signalserve.server.named import NamedModels
from signalserve.server.question import Answer, Flag, Question
from signalserve.server.resolver import resolve
from signalserve.server.rows import bar_flags, out_of_range, read_rows
from signalserve.server.snapshot import ServedModel, ServingSnapshot, ServingState
from signalserve.server.threads import Threads

# what a batch computes before one that waits has its turn
_SLICE_SECONDS = 0.02

# what may be computed on the event loop: what takes longer is run in a worker thread, so that it delays no other call
_INLINE_SECONDS = 0.001
# what a value costs beside the model: read from a message, looked at for its range
_VALUE_SECONDS = 50e-9
# what a name costs where the columns come in an order that is new
_NAME_SECONDS = 500e-9

# a batch is cut no finer: below this the hand-over costs more than a second core gives
_SMALLEST_PART = 32
_CORES = min(4, os.cpu_count() or 1)

# what a wait for a registry revision leaves of the deadline, for the answer itself
_TO_ANSWER = 0.02

# threads of a kind, with those whose model hangs; what one model may have of them, its quick calls being at most four
_MOST_THREADS, _MOST_OF_A_MODEL = 64, 16

# models that the items of one batch name are loaded so many at a time
_NAMED_AT_ONCE = 4

Item = TypeVar("Item")
Given = TypeVar("Given")
Content = TypeVar("Content")


class Scorer:
    """Answers questions from the present snapshot and from the models that requests named."""

    def __init__(
        self,
        state: ServingState,
        named: NamedModels,
        limits: ScoringLimits,
        observe: Callable[[float], None],
        reach: Callable[[int, float | None, Collection[Key]], Awaitable[ServingSnapshot]],
        aside: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """What it is made of.

        `observe` gets the seconds that each answer took, a wait for a thread included. `reach` is
        `RegistryWatcher.wait_for_revision`. `aside` is where a call waits for what takes no thread.
        """
        self._aside = aside
        self._state = state
        self._named = named
        self._limits = limits
        self._observe = observe
        self._reach = reach
        self._lock = threading.Lock()
        self._computing: Counter[str] = Counter()
        self._for_calls = Threads("predict-call", 4, _MOST_THREADS)
        self._for_messages = Threads("messages", _CORES)
        self._for_streams = Threads("predict-stream", _CORES, _MOST_THREADS)
        self._for_batches = Threads("predict-batch", _CORES, _MOST_THREADS)

    def close(self) -> None:
        """Begin nothing more."""
        for threads in (self._for_messages, self._for_calls, self._for_streams, self._for_batches):
            threads.close()

    async def prepare(self, work: Callable[[Content], Given], content: Content) -> Given:
        """What `work` makes of something large, which takes milliseconds and waits for no model."""
        return await self._for_messages.run(work, content)

    async def answer(
        self,
        question: Question,
        remaining: float | None,
        give: Callable[[Answer], Given],
        *,
        of_stream: bool = False,
    ) -> Given:
        """What `give` makes of the answer; heavy work goes to a worker thread.

        `remaining` is the time left in seconds, None for no deadline. `of_stream`: the question is an item of a stream.

        Raises:
            ServingError, RegistryError, PredictorError: there is no answer; the text says why.
        """
        _check_time(remaining)
        started = time.perf_counter()
        snapshot = self._state.snapshot
        moment = until(remaining)
        if question.min_revision > max(_revision(snapshot, question), 0):
            keys = () if question.model_id else (question.key,)
            with self._aside():  # the items behind one of a stream wait for it, so that it does not wait
                patience = until(0.0 if of_stream else remaining, _TO_ANSWER)
                snapshot = await self._reach(question.min_revision, patience, keys)
        _check_revision(snapshot, question)
        served = resolve(snapshot, question) or self._named.get(question.model_id)
        if served is None:
            with self._aside():
                served = await self._named.load(question.model_id)
        if _seconds(served, question) <= _INLINE_SECONDS:
            given = give(self._score(snapshot, served, question))
        else:
            threads = self._for_streams if of_stream else self._for_calls
            given = await threads.run(self._work, snapshot, question, served, moment, give)
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
        parts: int = 1,
    ) -> list[Given]:
        """For each item what `give` makes of its answer, or `fail` of its error, in the items' order.

        The three are called in worker threads, in as many side by side as there are `parts` (`most_parts`).

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
        moment = until(remaining)
        snapshot = self._state.snapshot
        given_up = threading.Event()

        # by the model that a request named and nobody has loaded yet; their places are empty until it is
        unloaded: dict[str, list[tuple[list[Any], int, Question]]] = {}

        def work(part: Sequence[Item], results: list[Any]) -> None:
            """Go on with a part, for a slice of time where others wait."""
            pause = time.monotonic() + _SLICE_SECONDS
            for number in range(len(results), len(part)):
                if given_up.is_set():
                    break
                try:
                    question = ask(part[number])
                    results.append(self._work(snapshot, question, None, moment, give))
                except _NotLoadedError:
                    results.append(None)
                    unloaded.setdefault(question.model_id, []).append((results, number, question))
                except Exception as error:  # noqa: BLE001 - one bad item fails no other
                    results.append(fail(error))
                if self._for_batches.awaited and time.monotonic() >= pause:
                    break

        def work_named(
            served: ServedModel | Exception, places: Sequence[tuple[list[Any], int, Question]]
        ) -> None:
            for results, number, question in places:
                if given_up.is_set():
                    break
                try:
                    if isinstance(served, Exception):
                        raise served
                    results[number] = self._work(snapshot, question, served, moment, give)
                except Exception as error:  # noqa: BLE001 - as above
                    results[number] = fail(error)

        async def compute(part: Sequence[Item]) -> list[Given]:
            results: list[Given] = []
            while len(results) < len(part):
                await self._for_batches.run(work, part, results)
            return results

        turns = asyncio.Semaphore(_NAMED_AT_ONCE)

        async def load_and_work(model_id: str) -> None:
            async with turns:
                try:
                    async with asyncio.timeout(
                        None if moment is None else moment - time.monotonic() - _TO_ANSWER
                    ):
                        served: ServedModel | Exception = await self._named.load(model_id)
                except TimeoutError:
                    served = LoadTimeoutError(
                        "LOADING", "the model was still being loaded as the deadline came"
                    )
                except Exception as error:  # noqa: BLE001 - as above
                    served = error
                await self._for_batches.run(work_named, served, unloaded[model_id])

        try:
            computed = await asyncio.gather(*(compute(part) for part in _cut(items, parts)))
            if unloaded:
                await asyncio.gather(*(load_and_work(model_id) for model_id in unloaded))
        except asyncio.CancelledError:
            given_up.set()
            raise
        return [result for part in computed for result in part]

    def _work(
        self,
        snapshot: ServingSnapshot,
        question: Question,
        served: ServedModel | None,
        moment: float | None,
        give: Callable[[Answer], Given],
    ) -> Given:
        """One answer in a worker thread; `served` where it is known already which model gives it."""
        if moment is not None and time.monotonic() >= moment:
            raise _late()
        _check_revision(snapshot, question)
        if served is None:
            served = resolve(snapshot, question) or self._named.get(question.model_id)
        if served is None:
            raise _NotLoadedError
        with self._turn_of(served):
            return give(self._score(snapshot, served, question))

    @contextmanager
    def _turn_of(self, served: ServedModel) -> Iterator[None]:
        """A place among the calls that a model computes at once: one whose calls hang leaves threads for the others.

        Raises:
            OverloadedError: too many of its calls have not ended.
        """
        with self._lock:
            count = self._computing[served.model_id]
            if count >= _MOST_OF_A_MODEL:
                raise OverloadedError(
                    "MODEL_HANGS",
                    f"{count} calls of {served.model_id} have not ended yet: it hangs, or is far too slow",
                    metadata={"model_id": served.model_id},
                )
            self._computing[served.model_id] += 1
        try:
            yield
        finally:
            with self._lock:
                self._computing[served.model_id] -= 1
                if not self._computing[served.model_id]:
                    del self._computing[served.model_id]

    def warnings(self) -> list[str]:
        """Models whose calls do not end, for the status."""
        with self._lock:
            hanging = [name for name, count in self._computing.items() if count >= _MOST_OF_A_MODEL]
        return [f"{_MOST_OF_A_MODEL} calls of {name} have not ended: it hangs" for name in hanging]

    def _score(self, snapshot: ServingSnapshot, served: ServedModel, question: Question) -> Answer:
        now = time.time()
        stale = served.is_stale(now)
        limits = self._limits
        if stale and limits.refuse_stale and not question.model_id:
            raise _stale(served)
        predictor = served.predictor
        matrix = read_rows(question, predictor, limits)
        try:
            scores = predictor.predict(matrix)
        except BrokenScoresError as error:
            raise _broken(served, error) from error
        except KeyboardInterrupt as error:
            # Ctrl-C is a signal to the event loop: this one is the model's own
            raise _broken(served, BrokenScoresError("MODEL_FAILED", "KeyboardInterrupt")) from error
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


def _seconds(served: ServedModel, question: Question) -> float:
    """About what an answer takes."""
    if served.predictor.engine == "native":
        return math.inf  # anybody's code may take any time, or for ever
    row = served.row_seconds / len(served.predictor.feature_names)
    return len(question.values) * (row + _VALUE_SECONDS) + len(question.columns) * _NAME_SECONDS


def most_parts(count: int) -> int:
    """Into how many parts a batch is cut at most: ONNX Runtime lets other threads run while it computes."""
    return max(1, min(_CORES, count // _SMALLEST_PART))


def _cut(items: Sequence[Item], parts: int) -> list[Sequence[Item]]:
    size = -(-len(items) // parts)
    return [items[start : start + size] for start in range(0, len(items), size)]


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
        better = None if question.model_id else snapshot.not_current.get(question.key)
        why = "" if better is None else f" of {question.key}, as {better.model_id} could not be loaded"
        raise BehindError(
            "BEHIND",
            f"revision {asked} of the registry is asked for, and this server serves {max(served, 0)}{why}",
            metadata={"registry_revision": str(max(served, 0)), "asked": str(asked)},
        )


def _late() -> LateError:
    return LateError("DEADLINE_GONE", "the deadline was gone before the work began; nothing was computed")


def _broken(served: ServedModel, error: BrokenScoresError) -> BrokenAnswerError:
    where = {"row": str(error.row)} if isinstance(error, NonFiniteScoreError) else {}
    return BrokenAnswerError(
        error.reason,
        f"{served.model_id} of {served.key}: {error}",
        metadata={"model_id": served.model_id, **where},
    )


def _stale(served: ServedModel) -> NothingToServeError:
    since = datetime.fromtimestamp(served.stale_at or 0.0, UTC)
    return NothingToServeError(
        "MODEL_STALE",
        f"{served.model_id} of {served.key} is older than ml.max_model_age since {since:%Y-%m-%d %H:%M}Z and "
        "ml.stale_models says refuse; train and promote a newer one",
        metadata={"model_id": served.model_id, "stale_since": since.isoformat()},
    )
