"""The engine's way to the server: one stream, kept up by a thread of its own.

The promise: every bar that was asked about ends up with its true score, and the bar loop never waits longer
than the deadline for it. From that follow the rules:

1. `score` hands a bar's row to the thread and waits for the answer, at most `deadline_ms`. An answer within it
   is the only kind that a caller may trade on. Which of the two it was, in time or late, is decided once,
   under the lock.
2. What is not answered in time stays asked: the answer of a slow server, or of one that comes back, is given
   by `late`. A late score goes to the record of its bar; it never trades, the bar's moment has passed.
3. The newest bar is sent first, then what waits, oldest first, at most `BURST` at once: a long backlog delays
   the newest bar by a burst at most.
4. A stream that had answered and breaks is opened anew at once; nobody needs to notice. One that breaks
   without an answer means that the server is away: one row at a time asks whether it is back, the newest bar's
   if one waits, after pauses that grow, with jitter; with or without new bars. The first bar that meets this
   waits its deadline out, as a restart may be over by then. After it `score` does not wait at all until
   something is answered.
5. The answers that were pending when a stream broke are asked again. Predictions change nothing on the server,
   so asking twice is safe, and each bar takes the first answer that comes.
6. "No model" (NOT_FOUND, FAILED_PRECONDITION) is a state of the server, as after its start before the models
   are loaded: it counts as away. INVALID_ARGUMENT is final for its bar. A fault of the server's own is tried
   `TRIES` times, so that one bar that breaks a model can't keep the others from their scores.
7. A model that needs other features than the row's (`OTHER_FEATURES`) is no state of the server either: the refusal
   is final for the row, and given with it, so that the caller may compute another row of the same bar and ask again.
   A row that was refused late stays without a score: the bars that it was computed from are gone.

The stream is one that breaks, and not one that reconnects by itself (`client.stream(reconnect=True)`): that one asks
again in the order of the requests, while here a bar that has closed meanwhile goes before all that waits, and a bar
is asked about for longer than any deadline.

What waits is not bounded by number: a year of 15-minute bars of 40 features is 11 MB.

Rows always go with their feature names and their feature set, never with a schema hash: a promote may change the
model's columns between two bars, and names are right for both models, while a stale hash would cost the bar a second
try. The set is what tells equally named columns of two definitions apart.
"""

from __future__ import annotations

import heapq
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from time import monotonic
from typing import Protocol

import numpy as np

from signalserve.client import (
    Cancelled,
    DataLoss,
    InternalError,
    InvalidArgument,
    Prediction,
    SignalClient,
    SignalServeError,
    Stream,
    StreamItem,
    Unavailable,
    UnknownError,
)
from signalserve.client.backoff import Backoff
from signalserve.common.log import LibraryLog
from signalserve.common.moments import utc_now
from signalserve.features.row import FeatureRow

BURST = 64
"""Requests under way at once."""
TRIES = 3
"""Of a row at which the server fails through a fault of its own."""
STREAM_DEADLINE_MS = 5_000.0
"""After so long without an answer a stream is given up, as its server hangs."""
OTHER_FEATURES = frozenset({"FEATURE_SET_MISMATCH", "MISSING_FEATURES", "SCHEMA_MISMATCH"})
"""Reasons of a refusal: the model that answers needs other features than the row's."""

CONNECTED, AWAY = "connected", "away"

_log = LibraryLog("live")


@dataclass(frozen=True, slots=True)
class Score:
    """What became of one bar's question.

    `prediction` is None where there is none: `reason` says why (of a server that is away in short, `LinkReport.error`
    has the details), and `final` whether one may still come.
    `measured`: asked once, at its bar's moment, so that its latency says how fast the server is. `feature_set`: the
    row's. `refusal`: set where the model that answers needs other features than the row's.
    """

    number: int
    prediction: Prediction | None
    reason: str = ""
    final: bool = True
    measured: bool = False
    feature_set: str = ""
    refusal: SignalServeError | None = None


@dataclass(frozen=True, slots=True)
class LinkReport:
    """How the way to the server does.

    `state`: `connected` or `away`; `error`: why it is away, "" while it is not. `last_error` and `last_error_time`: the
    newest failed try, whatever came after it. `reconnects`: streams that answered, after the first that did;
    `reconnect_attempts`: streams that were opened after the first.
    """

    state: str = AWAY
    error: str = ""
    last_error: str = ""
    last_error_time: datetime | None = None
    errors: int = 0
    reconnects: int = 0
    reconnect_attempts: int = 0
    outstanding: int = 0


class Scorer(Protocol):
    """What the engine needs; `StreamScorer` documents it."""

    deadline: float
    """Seconds that a bar waits for its score at most."""

    def score(
        self,
        number: int,
        row: FeatureRow,
        event_time: datetime | None = None,
        *,
        within: float | None = None,
    ) -> Score:
        """Ask for a bar's score and wait for it, no longer than the deadline, or than `within` seconds."""

    def late(self) -> list[Score]:
        """Take the scores that came after `score` gave up on them."""

    def wait_late(self, seconds: float) -> bool:
        """Wait for a late score, at most so long; False once nothing is asked any more."""

    def report(self) -> LinkReport:
        """Say how the way to the server does; also after `close`."""

    def close(self) -> None:
        """End whatever runs."""


@dataclass(slots=True)
class _Question:
    number: int
    row: FeatureRow
    event_time: datetime | None
    tries: int = 0
    waited_for: bool = True
    at_its_moment: bool = False
    score: Score | None = field(default=None)

    def __lt__(self, other: _Question) -> bool:
        return self.number < other.number


class StreamScorer:
    """Asks one key's model over `client.stream()`; close it, or use `LiveEngine`, which does.

    Args:
        client: stays the caller's; it must outlive the scorer.
        symbol, timeframe: the key.
        model_id: ask this model instead of the key's (A/B).
        deadline_ms: how long `score` waits at most; None: the client's `deadline_ms`.
        backoff: the pauses while the server is away.
    """

    def __init__(
        self,
        client: SignalClient,
        symbol: str,
        timeframe: str,
        *,
        model_id: str | None = None,
        deadline_ms: float | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self._client = client
        self._symbol = symbol
        self._timeframe = timeframe
        self._model_id = model_id
        self.deadline = (client.deadline_ms if deadline_ms is None else deadline_ms) / 1000.0
        self._stream_deadline_ms = max(STREAM_DEADLINE_MS, 4_000.0 * self.deadline)
        self._backoff = Backoff() if backoff is None else backoff

        self._changed = threading.Condition()
        self._newest: _Question | None = None
        self._waiting: list[_Question] = []
        self._outstanding = 0
        self._late: deque[Score] = deque()
        self._stream: Stream | None = None
        self._proven = False  # the present stream has answered
        self._failing = False  # the last try failed, and nothing was answered since
        self._holding = False  # a bar has waited its deadline out for nothing meanwhile
        self._resume_at = 0.0
        self._state, self._error, self._why_away = AWAY, "", ""
        self._last_error = ""
        self._last_error_time: datetime | None = None
        self._errors = self._streams = self._answering = 0
        self._closed = False
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="signalserve-live", daemon=True)
        self._thread.start()

    def score(
        self,
        number: int,
        row: FeatureRow,
        event_time: datetime | None = None,
        *,
        within: float | None = None,
    ) -> Score:
        """Ask for the score of the newest bar and wait for it, no longer than the deadline.

        Args:
            number: the bar's; each greater than the one before, or the same again after a refusal of its row.
            row: its features.
            event_time: the bar's close time, for the server's STALE_BAR flag; None: do not flag.
            within: seconds to wait at most, where some of the deadline is gone; 0 or less: ask, and do not wait.
        """
        patience = self.deadline if within is None else max(0.0, within)
        # a copy, because the row may be a view that keeps a whole matrix alive while it waits
        question = _Question(number, replace(row, values=np.array(row.values)), event_time)
        with self._changed:
            self._check()
            self._outstanding += 1
            if self._holding:
                return self._give_up(question, self._why_away)
            self._newest = question
            self._changed.notify_all()
            self._changed.wait_for(lambda: question.score is not None or self._fault is not None, patience)
            if question.score is not None:
                return question.score
            self._check()
            self._holding = self._failing
            if self._failing:
                return self._give_up(question, self._why_away)
            return self._give_up(question, f"no answer within {self.deadline * 1000:.0f} ms")

    def late(self) -> list[Score]:
        """Take the scores that came after `score` gave up on them."""
        with self._changed:
            self._check()
            scores = list(self._late)
            self._late.clear()
        return scores

    def wait_late(self, seconds: float) -> bool:
        """Wait until `late` has something, at most so long; False once nothing is asked any more."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._late or not self._outstanding or self._fault is not None, seconds
            )
            self._check()
            return bool(self._late) or self._outstanding > 0

    def report(self) -> LinkReport:
        """Say how the way to the server does."""
        with self._changed:
            return LinkReport(
                state=self._state,
                error=self._error,
                last_error=self._last_error,
                last_error_time=self._last_error_time,
                errors=self._errors,
                reconnects=max(0, self._answering - 1),
                reconnect_attempts=max(0, self._streams - 1),
                outstanding=self._outstanding,
            )

    def close(self) -> None:
        """End the stream and the thread; what was not answered stays so. May be called twice."""
        with self._changed:
            self._closed = True
            stream = self._stream
            self._changed.notify_all()
        if stream is not None:
            stream.cancel()
        self._thread.join()

    def _check(self) -> None:
        if self._fault is not None:
            raise RuntimeError("the scorer's thread has ended through a fault") from self._fault
        if self._closed:
            raise RuntimeError("the scorer is closed")

    def _give_up(self, question: _Question, reason: str) -> Score:
        """Stop waiting for a question, which stays asked."""
        question.waited_for = False
        # elsewhere it is under way, or waits already
        if self._newest is question or question.tries == 0:
            self._newest = None
            heapq.heappush(self._waiting, question)
            self._changed.notify_all()
        return Score(question.number, None, reason, final=False)

    # --- the thread ---

    def _work(self) -> None:
        try:
            while questions := self._take():
                self._ask(questions)
        except BaseException as error:  # noqa: BLE001 - raised again where the engine asks
            with self._changed:
                self._fault = error
                self._changed.notify_all()

    def _take(self) -> list[_Question]:
        """Wait for something to ask; nothing once closed."""
        with self._changed:
            while not self._closed:
                pause = self._resume_at - monotonic()
                if (self._newest is not None or self._waiting) and pause <= 0.0:
                    return self._burst()
                self._changed.wait(pause if pause > 0.0 else None)
            return []

    def _burst(self) -> list[_Question]:
        questions: list[_Question] = []
        if self._newest is not None:
            self._newest.at_its_moment = self._newest.tries == 0
            questions.append(self._newest)
            self._newest = None
        room = 1 if self._failing else BURST
        while self._waiting and len(questions) < room:
            questions.append(heapq.heappop(self._waiting))
        for question in questions:
            question.tries += 1
        return questions

    def _ask(self, questions: list[_Question]) -> None:
        pending = deque(questions)
        try:
            stream = self._open() if self._stream is None else self._stream
            for question in questions:
                stream.send(
                    self._symbol,
                    self._timeframe,
                    question.row,
                    self._model_id,
                    event_time=question.event_time,
                )
            while pending:
                item = next(stream)
                self._answered(pending.popleft(), item)
        except SignalServeError as error:
            self._broken(error, pending)

    def _open(self) -> Stream:
        stream = self._client.stream(deadline_ms=self._stream_deadline_ms, max_pending=2 * BURST)
        with self._changed:
            if not self._closed:
                self._stream, self._proven = stream, False
                self._streams += 1
                return stream
        stream.cancel()
        raise Cancelled("the scorer is closed")

    def _answered(self, question: _Question, item: StreamItem) -> None:
        with self._changed:
            if item.error is None:
                self._back()
                measured = question.at_its_moment and question.tries == 1
                row = question.row
                score = Score(question.number, item.result(), measured=measured, feature_set=row.feature_set)
                self._settle(question, score)
                return
            reason = str(item.error)
            if item.error.reason in OTHER_FEATURES:
                self._back()
                self._note(reason)
                self._settle(question, Score(question.number, None, reason, refusal=item.error))
                return
            self._errors += 1
            if isinstance(item.error, InvalidArgument) or (
                isinstance(item.error, InternalError | DataLoss | UnknownError) and question.tries >= TRIES
            ):
                self._back()
                self._note(reason)
                self._settle(question, Score(question.number, None, reason))
            else:
                self._away(item.error, [question])

    def _broken(self, error: SignalServeError, pending: deque[_Question]) -> None:
        with self._changed:
            stream, self._stream = self._stream, None
            if not self._closed:
                self._errors += 1
                if self._proven:
                    self._note(str(error))
                    self._put_back(pending)
                else:
                    self._away(error, pending)
        if stream is not None:
            stream.cancel()

    def _settle(self, question: _Question, score: Score) -> None:
        self._outstanding -= 1
        if question.waited_for:
            question.score = score
        else:
            self._late.append(score)
        self._changed.notify_all()

    def _back(self) -> None:
        if self._state == AWAY:
            _log.info("live.server_answers", target=self._client.target, waiting=len(self._waiting))
        self._answering += not self._proven
        self._proven, self._failing, self._holding = True, False, False
        self._state, self._error, self._why_away = CONNECTED, "", ""
        self._backoff.reset()

    def _note(self, reason: str) -> None:
        self._last_error, self._last_error_time = reason, utc_now()

    def _away(self, error: SignalServeError, questions: Sequence[_Question] | deque[_Question]) -> None:
        why = _in_short(error)
        if why != self._why_away:
            _log.warning("live.server_away", target=self._client.target, error=str(error))
        self._failing = True
        self._state, self._error, self._why_away = AWAY, str(error), why
        self._note(self._error)
        self._resume_at = monotonic() + self._backoff.pause()
        self._put_back(questions)

    def _put_back(self, questions: Sequence[_Question] | deque[_Question]) -> None:
        for question in questions:
            if question.waited_for:
                self._newest = question
            else:
                heapq.heappush(self._waiting, question)
        self._changed.notify_all()


def _in_short(error: SignalServeError) -> str:
    """What every bar says that meets a server in this state; the details are told once."""
    if error.reason:
        return f"{error.code.name} ({error.reason})"
    return f"{error.code.name}: {'the server is away' if isinstance(error, Unavailable) else 'no answer'}"
