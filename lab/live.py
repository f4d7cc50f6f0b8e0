"""The live engines, by the snapshot that each leaves at every bar.

1. A snapshot is replaced by one rename, so it is whole; one that is not, or is of another format, is unreadable.
2. An engine is stale where it runs and has left nothing for `STALE_BARS` bars and `GRACE`; one that stopped is stopped.
3. What is not known is None: an engine that never had an answer has no model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from signalserve.common.moments import utc_now
from signalserve.common.timeframe import UnknownTimeframeError, timeframe_delta
from signalserve.lab.files import listed, read_object, signature
from signalserve.lab.plain import mapping, moment, number, text_of

STALE_BARS = 2.5
GRACE = timedelta(seconds=30)
RUNNING, STOPPED, STALE, UNREADABLE = "running", "stopped", "stale", "unreadable"
_FORMAT = 1


@dataclass(frozen=True)
class LiveBar:
    """One bar as the engine saw it; `late`: its score came after its moment and traded nothing.

    `value`: a regressor's expected return as a share, which has no probability.
    """

    bar_time: datetime
    close: float | None
    probability: float | None
    signal: str
    model_id: str
    latency_ms: float | None
    late: bool
    position: str
    equity: float | None
    note: str
    value: float | None = None


@dataclass(frozen=True)
class LiveSignal:
    """One signal, LONG, SHORT or CLOSE, given at the close of the bar that opened at `bar_time`."""

    bar_time: datetime
    signal: str
    probability: float | None
    model_id: str
    close: float | None
    value: float | None = None


@dataclass(frozen=True)
class PositionBand:
    """A run of bars with one position, `long` or `short`; `end` is the last bar's open time."""

    start: datetime
    end: datetime
    side: str


@dataclass(frozen=True)
class ModelChange:
    """The first bar that another model answered."""

    bar_time: datetime
    before: str
    after: str


@dataclass(frozen=True)
class LiveEngine:
    """One engine.

    `name` is the snapshot's name without `.json`. `state`: `running`, `stopped`, `stale` or `unreadable`, and `text` in
    words. `pinned_model_id`: it asks for this model instead of following its key. `server`: how the engine's way to
    the server does, `connected` or `away`. `stale_after`: when it becomes stale unless something comes. `proba_entry`
    and `proba_exit` are those that it trades by, and of a regressor's values `value_entry_bps` and `value_exit_bps`.
    """

    name: str
    state: str
    text: str
    symbol: str = ""
    timeframe: str = ""
    started: datetime | None = None
    updated: datetime | None = None
    stale_after: datetime | None = None
    pinned_model_id: str | None = None
    used_model_id: str | None = None
    revision: int | None = None
    last_bar: datetime | None = None
    last_probability: float | None = None
    position: str = ""
    equity: float | None = None
    starting_equity: float | None = None
    latency_p50_ms: float | None = None
    latency_p99_ms: float | None = None
    server: str = ""
    server_error: str = ""
    unanswered: int | None = None
    counts: Mapping[str, float | None] | None = None
    signals: tuple[LiveSignal, ...] = ()
    recent: tuple[LiveBar, ...] = ()
    bands: tuple[PositionBand, ...] = ()
    model_changes: tuple[ModelChange, ...] = ()
    proba_entry: float | None = None
    proba_exit: float | None = None
    last_value: float | None = None
    value_entry_bps: float | None = None
    value_exit_bps: float | None = None

    def follows(self, symbol: str, timeframe: str) -> bool:
        """Whether it takes what is in production for a key, and runs."""
        mine = (self.symbol, self.timeframe) == (symbol, timeframe)
        return mine and self.pinned_model_id is None and self.state in (RUNNING, STALE)


class LiveEngines:
    """The engines of one snapshot folder.

    Args:
        folder: `live.snapshot_dir`.
        thresholds: the probabilities at which a long is entered and left, for engines that don't say theirs.
        clock: gives the present moment.
    """

    def __init__(
        self, folder: Path | str, thresholds: tuple[float, float], *, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self.folder = Path(folder)
        self._thresholds = thresholds
        self._clock = clock

    def all(self) -> tuple[LiveEngine, ...]:
        """Every engine, by name; none where the folder is not there."""
        names = [entry.name for entry in listed(self.folder) if entry.name.endswith(".json")]
        return tuple(self._engine(self.folder / name) for name in names)

    def one(self, name: str) -> LiveEngine | None:
        """The engine of a name; None where there is none."""
        file = next((entry.name for entry in listed(self.folder) if entry.name == f"{name}.json"), None)
        return None if file is None else self._engine(self.folder / file)

    def following(self, symbol: str, timeframe: str) -> tuple[LiveEngine, ...]:
        """The engines that follow a key now: a promote changes what they trade on."""
        return tuple(engine for engine in self.all() if engine.follows(symbol, timeframe))

    def signature(self) -> tuple[object, ...]:
        """What changes when a snapshot comes, changes or goes."""
        names = [entry.name for entry in listed(self.folder) if entry.name.endswith(".json")]
        return tuple((name, signature(self.folder / name)) for name in names)

    def _engine(self, path: Path) -> LiveEngine:
        found = read_object(path)
        if found.value is None:
            return LiveEngine(text_of(path.stem), UNREADABLE, found.problem)
        if found.value.get("format") != _FORMAT:
            text = f"{path.name} is of format {text_of(found.value.get('format'))}; this version reads format {_FORMAT}"
            return LiveEngine(text_of(path.stem), UNREADABLE, text)
        updated = moment(found.value.get("updated"))
        if updated is None:
            return LiveEngine(text_of(path.stem), UNREADABLE, f"{path.name} does not say when it was written")
        return self._read(text_of(path.stem), found.value, updated)

    def _read(self, name: str, values: Mapping[str, Any], updated: datetime) -> LiveEngine:
        timeframe = text_of(values.get("timeframe"))
        stale_after = _stale_after(updated, timeframe)
        now = self._clock()
        if values.get("state") == STOPPED:
            state, text = STOPPED, "it has stopped"
        elif stale_after is not None and now > stale_after:
            state = STALE
            text = f"nothing came for more than {STALE_BARS:g} bars; is its process there, and its source of bars?"
        else:
            state, text = RUNNING, "it runs"
        recent = tuple(_bars(values.get("recent")))
        counts = values.get("counts")
        rules = mapping(values.get("rules"))
        # an engine of an earlier version does not say what it trades by
        entry, leave = (
            configured if (stated := number(rules.get(name))) is None else stated
            for name, configured in zip(("proba_entry", "proba_exit"), self._thresholds, strict=True)
        )
        return LiveEngine(
            name=name,
            state=state,
            text=text,
            symbol=text_of(values.get("symbol")),
            timeframe=timeframe,
            started=moment(values.get("started")),
            updated=updated,
            stale_after=None if state == STOPPED else stale_after,
            pinned_model_id=_known(values.get("pinned_model_id")),
            used_model_id=_known(values.get("used_model_id")),
            revision=_count(values.get("revision")),
            last_bar=moment(values.get("last_bar")),
            last_probability=number(values.get("last_probability")),
            position=text_of(values.get("position")),
            equity=number(values.get("equity")),
            starting_equity=number(values.get("starting_equity")),
            latency_p50_ms=number(values.get("latency_p50_ms")),
            latency_p99_ms=number(values.get("latency_p99_ms")),
            server=text_of(values.get("server")),
            server_error=text_of(values.get("server_error")),
            unanswered=_count(values.get("unanswered")),
            counts={text_of(key): number(value) for key, value in mapping(counts).items()},
            signals=tuple(_signals(values.get("signals"))),
            recent=recent,
            bands=tuple(_bands(recent)),
            model_changes=tuple(_changes(recent)),
            proba_entry=entry,
            proba_exit=leave,
            last_value=number(values.get("last_value")),
            value_entry_bps=number(rules.get("value_entry_bps")),
            value_exit_bps=number(rules.get("value_exit_bps")),
        )


def _stale_after(updated: datetime, timeframe: str) -> datetime | None:
    try:
        return updated + STALE_BARS * timeframe_delta(timeframe) + GRACE
    except (UnknownTimeframeError, OverflowError):
        return None


def _bars(found: object) -> Iterable[LiveBar]:
    for item in _items(found):
        values = mapping(item)
        time = moment(values.get("bar_time"))
        if time is not None:
            yield LiveBar(
                bar_time=time,
                close=number(values.get("close")),
                probability=number(values.get("probability")),
                signal=text_of(values.get("signal")),
                model_id=text_of(values.get("model_id")),
                latency_ms=number(values.get("latency_ms")),
                late=values.get("late") is True,
                position=text_of(values.get("position")),
                equity=number(values.get("equity")),
                note=text_of(values.get("note")),
                value=number(values.get("value")),
            )


def _signals(found: object) -> Iterable[LiveSignal]:
    for item in _items(found):
        values = mapping(item)
        time = moment(values.get("bar_time"))
        if time is not None:
            yield LiveSignal(
                bar_time=time,
                signal=text_of(values.get("signal")),
                probability=number(values.get("probability")),
                model_id=text_of(values.get("model_id")),
                close=number(values.get("close")),
                value=number(values.get("value")),
            )


def _bands(bars: Iterable[LiveBar]) -> Iterable[PositionBand]:
    held: PositionBand | None = None
    for bar in bars:
        if held is not None and bar.position == held.side:
            held = PositionBand(held.start, bar.bar_time, held.side)
            continue
        if held is not None:
            yield held
        held = (
            PositionBand(bar.bar_time, bar.bar_time, bar.position)
            if bar.position not in ("", "flat")
            else None
        )
    if held is not None:
        yield held


def _changes(bars: Iterable[LiveBar]) -> Iterable[ModelChange]:
    before = ""
    for bar in bars:
        if not bar.model_id:
            continue
        if before and bar.model_id != before:
            yield ModelChange(bar.bar_time, before, bar.model_id)
        before = bar.model_id


def _items(found: object) -> list[Any]:
    return found if isinstance(found, list) else []


def _known(value: object) -> str | None:
    return text_of(value) or None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
