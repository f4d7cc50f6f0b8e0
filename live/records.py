"""What a run leaves: a record a bar, the counts, the result."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from signalserve.trading.strategy import Signal


@dataclass(frozen=True, slots=True)
class BarRecord:
    """One bar as the engine saw it.

    `bar_time`: the open time, UTC. `probability` is None where there is no score (yet), and of a regressor, whose
    `value` is the expected return as a share; `late` that the score came after the bar's moment, and so traded
    nothing. `signal` (LONG, SHORT, CLOSE) fills at the next open. `position` (`long`, `short`, `flat`) and `equity`
    are as of this bar's close. `latency_ms`: from sending the row to its answer. `note` says why something is
    missing, and what was odd about the bar.
    """

    bar_time: datetime
    close: float
    probability: float | None
    signal: Signal | None
    model_id: str | None
    revision: int | None
    latency_ms: float | None
    late: bool
    position: str
    equity: float
    flags: tuple[str, ...]
    note: str
    value: float | None = None

    @property
    def scored(self) -> bool:
        """Whether a model has answered for it."""
        return self.probability is not None or self.value is not None


@dataclass(slots=True)
class LiveCounts:
    """Counted since the start.

    `bars`: taken from the source. `warmup`: of them, without features yet. `answers`: scores, the `late` ones
    included. `holds`: bars past the warm-up that had no score at their moment. `unusable`: of the
    answers, those that were not traded on: not one finite number, of other features, or flagged.
    `fills`: a flip is two. `gaps` and `missing_bars`: holes in the bars and what they lack. `ignored_bars`: repeated or
    older than the last. `pipeline_changes`: changes to the features of another model; `mismatched`: of the holds, those
    whose model needs features that the engine does not compute. `errors`: failed tries and rows without features.
    `reconnects`: times that the server was reached again; `reconnect_attempts`: tries at it, in vain or not.
    `snapshot_errors`: snapshots that could not be written.
    """

    bars: int = 0
    warmup: int = 0
    answers: int = 0
    late: int = 0
    holds: int = 0
    unusable: int = 0
    signals: int = 0
    fills: int = 0
    gaps: int = 0
    missing_bars: int = 0
    ignored_bars: int = 0
    pipeline_changes: int = 0
    mismatched: int = 0
    errors: int = 0
    reconnects: int = 0
    reconnect_attempts: int = 0
    snapshot_errors: int = 0


@dataclass(frozen=True)
class LiveResult:
    """A run that ended: one record a bar, in the bars' order, with its late score where one came.

    `unanswered`: bars that were asked about and never answered; `last_error`: what the last try for them met; ""
    where none is unanswered. `stopped`: `stop` ended it, not the source.
    """

    records: tuple[BarRecord, ...]
    counts: LiveCounts
    position: str
    equity: float
    used_model_id: str | None
    unanswered: int
    last_error: str
    stopped: bool
