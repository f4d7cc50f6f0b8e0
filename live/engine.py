"""The bar loop: bars -> features -> score -> signal -> account -> snapshot.

For each closed bar, in this order:

1. what was ordered at the close before fills at this bar's open (`trading.trader`, as in a backtest);
2. scores of earlier bars that came late go to their records, and nowhere else;
3. the features of the last `window_bars` bars give a row, the scorer is asked, for no longer than its deadline; where
   the model that answers needs other features, as after a promote, the pipeline is changed and the same bar asked
   about once more, within the same deadline;
4. equity is marked at the close, the strategy sees this bar's score, or that there is none, and its signal is
   ordered;
5. the record is kept, the snapshot replaced, the callback called.

A bar without a score at its moment is held: no signal, counted, said in its note. So is one whose features fail,
however they do, one whose model needs features that nobody here computes, and one whose answer is no score: one bar
never ends a run. After the last bar the
engine waits up to `settle_seconds` for the scores that are still due, since no bar waits any more. What is open
then stays open.

Holes in the bars are counted and noted; the features take the rows as consecutive, as training does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from time import monotonic

from signalserve.client import LatencyWindow, Prediction, SignalServeError
from signalserve.common.log import LibraryLog
from signalserve.common.moments import utc_now
from signalserve.common.timeframe import timeframe_delta
from signalserve.features.errors import FeatureError
from signalserve.features.pipeline import LONGEST_WINDOW, FeaturePipeline
from signalserve.features.row import FeatureRow
from signalserve.live.bars import Bar, BarSource
from signalserve.live.pipelines import NoPipelineError, Pipelines
from signalserve.live.records import BarRecord, LiveCounts, LiveResult
from signalserve.live.scoring import LinkReport, Score, Scorer
from signalserve.live.snapshot import LiveSnapshot, SignalEntry, SnapshotFile
from signalserve.live.usable import why_held, why_unusable
from signalserve.live.window import BarWindow
from signalserve.trading.rules import VALUE
from signalserve.trading.trader import Trader

RECENT_BARS = 96
RECENT_SIGNALS = 50

OnBar = Callable[[BarRecord], None]

_log = LibraryLog("live")


class LiveEngine:
    """One symbol and timeframe, from its bars to its paper account. Runs once.

    Args:
        symbol, timeframe: the key; `timeframe` is the distance of the source's bars.
        source: gives the bars.
        pipeline: gives the features that the scorer sends.
        scorer: gives the scores; closed at the end of `run`.
        trader: gives the signals, and what they earn on paper.
        snapshot: where the snapshot goes; None: nowhere.
        on_bar: called with the record of each bar, and once more with `late` set when its score comes later.
        pinned_model_id: the model that the scorer asks for, for the snapshot alone; None: the key's.
        event_times: send each bar's close time, for the server's STALE_BAR flag. Not for replays: every old
            bar would be flagged.
        settle_seconds: how long to wait for scores after the last bar.
        hold_on: flags of an answer that is not traded on.
        pipelines: what the pipeline may be changed to; None: it stays, and a model that needs another one is held.

    ::

        engine = LiveEngine("BTCUSDT", "15m", CsvReplay("bars.csv"), pipeline, scorer, trader)
        result = engine.run(max_bars=500)
    """

    def __init__(
        self,
        symbol: str,
        timeframe: str,
        source: BarSource,
        pipeline: FeaturePipeline,
        scorer: Scorer,
        trader: Trader,
        snapshot: SnapshotFile | None = None,
        *,
        on_bar: OnBar | None = None,
        pinned_model_id: str | None = None,
        event_times: bool = False,
        settle_seconds: float = 30.0,
        hold_on: Collection[str] = (),
        pipelines: Pipelines | None = None,
    ) -> None:
        self.symbol = symbol
        self.timeframe = timeframe
        self._source = source
        self._pipeline = pipeline
        self._scorer = scorer
        self._trader = trader
        self._account = trader.account
        self._snapshot = snapshot
        self._on_bar = on_bar
        self._pinned = pinned_model_id
        self._event_times = event_times
        self._settle_seconds = settle_seconds
        self._hold_on = frozenset(hold_on)
        self._pipelines = pipelines
        self._mismatch = ""

        self._step = timeframe_delta(timeframe)
        # no bar can be had again once a wider pipeline is needed
        self._window = BarWindow(max(pipeline.window_bars, LONGEST_WINDOW))
        self._counts = LiveCounts()
        self._records: list[BarRecord] = []
        self._signals: deque[SignalEntry] = deque(maxlen=RECENT_SIGNALS)
        self._latencies = LatencyWindow()
        self._last_time: datetime | None = None
        self._used: Prediction | None = None
        self._started = utc_now()
        self._stopping = False

    def stop(self) -> None:
        """End the run after the bar under way, without waiting for scores. May be called from a signal handler."""
        self._stopping = True
        self._source.stop()

    def run(self, max_bars: int | None = None) -> LiveResult:
        """Take bars until the source ends, `max_bars` were taken or `stop` is called; give what was.

        Raises:
            SnapshotInUseError: another engine keeps the snapshot file; no bar was taken.
            BarsError and what else the source raises; RuntimeError for a fault of the scorer's.
        """
        with ExitStack() as held:
            held.callback(self._scorer.close)
            if self._snapshot is not None:
                held.enter_context(self._snapshot.held())
            return self._run_held(max_bars)

    def _run_held(self, max_bars: int | None) -> LiveResult:
        _log.info("live.started", key=f"{self.symbol}/{self.timeframe}", snapshot=self._where())
        try:
            self._run(max_bars)
            link = self._scorer.report()
        finally:
            self._scorer.close()  # before the last snapshot, which says how the way to the server ended
            self._publish("stopped")
        _log.info("live.stopped", bars=self._counts.bars, unanswered=link.outstanding)
        return LiveResult(
            records=tuple(self._records),
            counts=self._all_counts(link),
            position=self._account.position,
            equity=self._account.equity,
            used_model_id=None if self._used is None else self._used.model_id,
            unanswered=link.outstanding,
            last_error=link.last_error if link.outstanding else "",
            stopped=self._stopping,
        )

    def _run(self, max_bars: int | None) -> None:
        for known in self._source.history(self._window.size - 1):
            self._follows(known)
            self._window.append(known)
        bars = iter(self._source)
        while not self._stopping and (max_bars is None or self._counts.bars < max_bars):
            bar = next(bars, None)
            if bar is None:
                break
            self._take(bar)
        give_up = monotonic() + self._settle_seconds
        # in slices, so that a stop from a signal handler is seen
        while not self._stopping and self._scorer.wait_late(min(0.1, max(0.0, give_up - monotonic()))):
            self._take_late()
            if monotonic() >= give_up:
                break
        self._take_late()

    def _take(self, bar: Bar) -> None:
        notes: list[str] = []
        if not self._follows(bar, notes):
            self._counts.ignored_bars += 1
            return
        self._counts.bars += 1
        self._window.append(bar)
        self._trader.open_bar(bar.open)
        self._take_late()
        prediction = self._score(bar, notes)
        probability = value = None
        if prediction is not None and not self._unusable(prediction, notes):
            probability, value = _by_output(prediction)
        if prediction is not None and prediction.out_of_range_features:
            notes.append(f"out of range: {', '.join(prediction.out_of_range_features)}")
        if value is None:
            signal = self._trader.close_bar(bar.close, probability)
        else:
            signal = self._trader.close_bar(bar.close, value, VALUE)
        self._counts.fills = len(self._account.fills)
        if self._account.ruined:
            notes.append("everything is lost: nothing more is traded")
        record = BarRecord(
            bar_time=bar.time,
            close=bar.close,
            probability=probability,
            signal=signal,
            model_id=prediction.model_id if prediction is not None else None,
            revision=prediction.registry_revision if prediction is not None else None,
            latency_ms=prediction.latency_ms if prediction is not None else None,
            late=False,
            position=self._account.position,
            equity=self._account.equity,
            flags=prediction.flags if prediction is not None else (),
            note="; ".join(notes),
            value=value,
        )
        self._records.append(record)
        if signal is not None and prediction is not None:
            self._counts.signals += 1
            self._signals.append(
                SignalEntry(bar.time, signal.value, probability, prediction.model_id, bar.close, value)
            )
        self._publish("running")
        if self._on_bar is not None:
            self._on_bar(record)

    def _follows(self, bar: Bar, notes: list[str] | None = None) -> bool:
        """Whether the bar is newer than the last one; counts what lies between them."""
        last, previous = bar.time, self._last_time
        if previous is not None:
            if last <= previous:
                return False
            missing = (last - previous) // self._step - 1
            if missing > 0 and notes is not None:
                self._counts.gaps += 1
                self._counts.missing_bars += missing
                notes.append(f"{missing} bars are missing before this one")
        self._last_time = last
        return True

    def _score(self, bar: Bar, notes: list[str]) -> Prediction | None:
        row = self._row(notes)
        if row is None:
            return None
        event_time = bar.time + self._step if self._event_times else None
        give_up = monotonic() + self._scorer.deadline
        score = self._scorer.score(len(self._records), row, event_time)
        if score.refusal is not None:
            if why := self._change_pipeline(score.refusal, give_up, notes):
                score = replace(score, reason=why)
            elif (row := self._row(notes)) is None:
                return None
            else:
                left = give_up - monotonic()
                score = self._scorer.score(len(self._records), row, event_time, within=left)
            self._note_mismatch(score)
        if score.prediction is None:
            self._counts.holds += 1
            notes.append(f"held: {score.reason}")
        else:
            self._note_answer(score, score.prediction)
        return score.prediction

    def _change_pipeline(self, refusal: SignalServeError, give_up: float, notes: list[str]) -> str:
        """Take the pipeline that the model needs; gives why not, "" where it was taken."""
        if self._pipelines is None:
            return str(refusal)
        try:
            pipeline = self._pipelines.after(refusal, give_up - monotonic())
        except NoPipelineError as error:
            return str(error)
        before, self._pipeline = self._pipeline, pipeline
        if (pipeline.names, pipeline.feature_set) == (before.names, before.feature_set):
            return str(refusal)  # as far as the server knows it is the right one
        self._counts.pipeline_changes += 1
        change = f"features changed from {before.feature_set} to {pipeline.feature_set}"
        notes.append(change)
        _log.info("live.pipeline_changed", key=f"{self.symbol}/{self.timeframe}", change=change)
        return ""

    def _note_mismatch(self, score: Score) -> None:
        """Count a bar whose model needs what the engine does not compute; the log has each reason once in a row."""
        why = "" if score.refusal is None else score.reason
        if why:
            self._counts.mismatched += 1
        if why and why != self._mismatch:
            _log.warning("live.no_pipeline", key=f"{self.symbol}/{self.timeframe}", why=why)
        self._mismatch = why

    def _unusable(self, prediction: Prediction, notes: list[str]) -> bool:
        why = why_unusable(prediction, self._pipeline.feature_set) or why_held(prediction, self._hold_on)
        if why:
            self._counts.unusable += 1
            self._counts.holds += 1
            notes.append(f"held: {why}")
        return bool(why)

    def _row(self, notes: list[str]) -> FeatureRow | None:
        if len(self._window) <= self._pipeline.warmup_bars:
            self._counts.warmup += 1
            notes.append("warm-up of the features")
            return None
        try:
            return self._pipeline.latest(self._window.frame())
        except Exception as error:  # noqa: BLE001 - whatever a bar does to the features, the next one may be well
            self._counts.errors += 1
            self._counts.holds += 1
            known = isinstance(error, FeatureError)
            if not known:
                _log.exception("live.features_failed", key=f"{self.symbol}/{self.timeframe}")
            notes.append(f"held: no features: {error if known else f'{type(error).__name__}: {error}'}")
            return None

    def _take_late(self) -> None:
        for score in self._scorer.late():
            record = self._records[score.number]
            prediction = score.prediction
            if prediction is None:
                record = replace(record, note=f"{record.note}; no score: {score.reason}")
            elif why := why_unusable(prediction, score.feature_set):
                self._counts.unusable += 1
                self._note_answer(score, prediction)
                record = replace(record, note=f"{record.note}; no score: {why}")
            else:
                self._counts.late += 1
                self._note_answer(score, prediction)
                probability, value = _by_output(prediction)
                record = replace(
                    record,
                    probability=probability,
                    value=value,
                    model_id=prediction.model_id,
                    revision=prediction.registry_revision,
                    latency_ms=prediction.latency_ms,
                    flags=prediction.flags,
                    late=True,
                )
            self._records[score.number] = record
            if self._on_bar is not None:
                self._on_bar(record)

    def _note_answer(self, score: Score, prediction: Prediction) -> None:
        self._counts.answers += 1
        self._used = prediction
        if score.measured:
            self._latencies.add(prediction.latency_ms)

    def _publish(self, state: str) -> None:
        if self._snapshot is None:
            return
        link = self._scorer.report()
        last = self._records[-1] if self._records else None
        snapshot = LiveSnapshot(
            symbol=self.symbol,
            timeframe=self.timeframe,
            state=state,
            started=self._started,
            updated=utc_now(),
            pinned_model_id=self._pinned,
            used_model_id=None if self._used is None else self._used.model_id,
            revision=None if self._used is None else self._used.registry_revision,
            last_bar=None if last is None else last.bar_time,
            last_probability=None if last is None else last.probability,
            last_value=None if last is None else last.value,
            position=self._account.position,
            equity=self._account.equity,
            starting_equity=self._account.starting_equity,
            rules=self._trader.rules,
            feature_set=self._pipeline.feature_set,
            latency_p50_ms=self._latencies.percentile(50),
            latency_p99_ms=self._latencies.percentile(99),
            link=link,
            counts=self._all_counts(link),
            signals=tuple(self._signals),
            recent=tuple(self._records[-RECENT_BARS:]),
        )
        try:
            self._snapshot.write(snapshot)
        except (OSError, ValueError) as error:
            if not self._counts.snapshot_errors:
                _log.warning("live.snapshot_failed", path=self._where(), error=str(error))
            self._counts.snapshot_errors += 1

    def _all_counts(self, link: LinkReport) -> LiveCounts:
        return replace(
            self._counts,
            errors=self._counts.errors + link.errors,
            reconnects=link.reconnects,
            reconnect_attempts=link.reconnect_attempts,
        )

    def _where(self) -> str:
        return "" if self._snapshot is None else str(self._snapshot.path.resolve())


def _by_output(prediction: Prediction) -> tuple[float | None, float | None]:
    """The score as a probability, or as an expected return; the other is None."""
    return (None, prediction.score) if prediction.output == VALUE else (prediction.score, None)
