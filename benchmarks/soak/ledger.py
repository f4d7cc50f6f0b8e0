"""What was answered, and whether it may have been.

1. A score is what the model that the answer names gives for that row.
2. The model was in production of its key at the revision that the answer names; one that is flagged NOT_CURRENT was so
   at an earlier one. Whoever names a model gets that one.
3. Once a promote has said that every worker serves it, no call that begins later is answered by an earlier revision.

The first and the third are seen at once, the second against the event log once that can be read.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from signalserve.client import Prediction, SignalServeError
from signalserve.registry.events import Event

_TOLERANCE = 1e-6
_KEPT = 60

REFUSED, CANCELLED = "refused", "cancelled"

# the model that was asked for by name, and the error -> REFUSED, CANCELLED, or "" for a loss
Excuse = Callable[[str | None, SignalServeError], str]


class Answered(NamedTuple):
    """What is looked up in the event log."""

    symbol: str
    model_id: str
    revision: int
    not_current: bool


class Count(NamedTuple):
    """Predictions up to a moment: all that were asked for, and what became of those that were not answered well.

    `refused` are those by a model that the worker which was asked had not loaded and could not load, `cancelled` those
    that gRPC gave up as a worker drained.
    """

    asked: int = 0
    failed: int = 0
    refused: int = 0
    cancelled: int = 0
    wrong: int = 0

    def since(self, earlier: Count) -> Count:
        """What came after an earlier count."""
        return Count(*(now - then for now, then in zip(self, earlier, strict=True)))


class Ledger:
    """Counts predictions and holds each against what must hold; used by all threads of the load."""

    def __init__(self, expected: dict[str, np.ndarray]) -> None:
        """`expected`: each model's score for each row that is asked about."""
        self._expected = expected
        self._lock = threading.Lock()
        self._asked = self._wrong = 0
        self._unanswered: Counter[str] = Counter()
        self._unchecked: set[Answered] = set()
        self._floors: dict[str, int] = defaultdict(int)
        self._history: dict[str, tuple[list[int], list[str]]] = defaultdict(lambda: ([], []))
        self._revision = 0
        self.kinds: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.findings: list[str] = []
        self.longest_ms = 0.0
        self.excuse: Excuse = lambda named, error: ""

    def count(self) -> Count:
        """All so far."""
        with self._lock:
            lost = self._unanswered
            return Count(self._asked, lost[""], lost[REFUSED], lost[CANCELLED], self._wrong)

    def floor(self, symbol: str) -> int:
        """The revision that a call which begins now is answered by, or a later one."""
        with self._lock:
            return self._floors[symbol]

    def served(self, symbol: str, revision: int) -> None:
        """Every worker serves a revision of a key."""
        with self._lock:
            self._floors[symbol] = max(self._floors[symbol], revision)

    def answered(
        self,
        kind: str,
        symbol: str,
        row: Sequence[int],
        prediction: Prediction,
        *,
        floor: int,
        named: str | None = None,
    ) -> None:
        """Take an answer to these rows; `floor` is what `floor` said as the call began, `named` the model asked for."""
        wrong = ""
        expected = self._expected.get(prediction.model_id)
        if expected is None:
            wrong = f"{prediction.model_id} is no model of ours"
        elif len(prediction.scores) != len(row):
            wrong = f"{len(prediction.scores)} scores for {len(row)} rows"
        elif not np.allclose(prediction.scores, expected[list(row)], rtol=0.0, atol=_TOLERANCE):
            wrong = f"{prediction.scores} and not {expected[list(row)]}"
        elif named is not None and prediction.model_id != named:
            wrong = f"{named} was asked for"
        elif named is None and prediction.registry_revision < floor:
            wrong = f"revision {prediction.registry_revision} after {floor} was served by every worker"
        with self._lock:
            self._asked += 1
            self.kinds[kind] += 1
            self.longest_ms = max(self.longest_ms, prediction.latency_ms)
            if wrong:
                self._find(f"wrong: {kind} of {symbol} by {prediction.model_id}: {wrong}")
                self._wrong += 1
            elif named is None:
                self._unchecked.add(
                    Answered(
                        symbol,
                        prediction.model_id,
                        prediction.registry_revision,
                        "NOT_CURRENT" in prediction.flags,
                    )
                )

    def failed(
        self, kind: str, symbols: Iterable[str], error: SignalServeError, *, named: str | None = None
    ) -> None:
        """Take a failure of a prediction for each symbol; it is a loss, unless the present fault excuses it."""
        symbols = list(symbols)
        with self._lock:
            self._asked += len(symbols)
            self.kinds[kind] += len(symbols)
            why = self.excuse(named, error)
            self._unanswered[why] += len(symbols)
            text = f"{why} {kind}: {error.code.name} {error.reason} {error.message[:160]}".strip()
            self.failures[text] += len(symbols)
            if not why:
                self._find(f"lost: {kind} of {', '.join(symbols[:3])} at {time.strftime('%X')}: {error}")

    def read(self, events: Sequence[Event]) -> None:
        """Hold what was answered so far against the whole event log."""
        with self._lock:
            for event in events[self._revision :]:
                for change in event.changes:
                    if change.after == "production":
                        revisions, models = self._history[change.symbol]
                        revisions.append(event.revision)
                        models.append(change.model_id)
                self._revision = event.revision
            later = {answer for answer in self._unchecked if answer.revision > self._revision}
            for answer in self._unchecked - later:
                if not self._was_in_production(answer):
                    self._find(f"wrong: {answer} was not in production then")
                    self._wrong += 1
            self._unchecked = later

    def found(self, text: str) -> None:
        """Note what does not hold."""
        with self._lock:
            self._find(text)

    def _was_in_production(self, answer: Answered) -> bool:
        revisions, models = self._history[answer.symbol]
        place = bisect_right(revisions, answer.revision)
        if answer.not_current:
            return answer.model_id in models[:place]
        return place > 0 and models[place - 1] == answer.model_id

    def _find(self, text: str) -> None:
        if len(self.findings) < _KEPT:
            self.findings.append(text)
