"""`signalserve live`: replay bars against a server and trade them on paper."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from signalserve.cli.connection import Connection, open_client, reaches_server
from signalserve.cli.exits import FAILED, NOT_FOUND, REFUSED, SERVER_AWAY, USAGE, say_error
from signalserve.cli.options import refuse_file, time_option, warn_of_another_key
from signalserve.cli.output import console, notes, plain
from signalserve.client import DeadlineExceeded, SignalClient, Unavailable
from signalserve.config.logs import configure_logs
from signalserve.config.settings import Settings
from signalserve.trading.rules import TradingRules

if TYPE_CHECKING:
    from signalserve.features.pipeline import FeaturePipeline
    from signalserve.live.engine import LiveEngine
    from signalserve.live.records import BarRecord, LiveResult

_SIGNAL_STYLES = {"LONG": "green", "SHORT": "magenta", "CLOSE": "red"}


@reaches_server
def live(
    connection: Connection,
    symbol: Annotated[str, typer.Option("--symbol", "-s", help="The symbol, such as BTCUSDT.")],
    timeframe: Annotated[str, typer.Option(help="Length of a bar: 15m, 1h, 1d.")] = "15m",
    ohlcv: Annotated[
        Path | None, typer.Option(help="Bar file; default live.ohlcv_path, else data.ohlcv_path.")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="Feature preset, kept to; default the one that each model was trained with."),
    ] = None,
    model_id: Annotated[
        str | None, typer.Option(help="Ask this model, not the one in production (A/B test).")
    ] = None,
    bars: Annotated[
        int | None, typer.Option(min=1, help="Replay only the last so many; the ones before warm up.")
    ] = None,
    start: Annotated[
        datetime | None, time_option("Replay only bars that open at this time (UTC) or later.")
    ] = None,
    pace: Annotated[float, typer.Option(min=0.0, help="Seconds a bar; 0: as fast as it goes.")] = 0.0,
    snapshot_dir: Annotated[
        Path | None,
        typer.Option(help="Default live.snapshot_dir; give an A/B engine a folder of its own."),
    ] = None,
    settle: Annotated[
        float, typer.Option(min=0.0, help="Seconds to wait after the last bar for scores that are missing.")
    ] = 30.0,
    json_output: Annotated[bool, typer.Option("--json", help="One JSON object a line and bar.")] = False,
) -> None:
    """Replay a bar file bar by bar: features, score from the server, signal, paper account.

    A bar without an answer in time is held: no signal. Its score is asked for again and shown once more, marked
    `late`, when it comes. A promote to a model of another preset changes the features within the same bar. Ctrl-C
    ends the run with a summary and exit code 0. Exit code 3: bars are left that the server, being away, never scored.

    A TIME is ISO 8601, and UTC unless it names a zone: 2024-06-30 (which is its midnight), 2024-06-30T12:00,
    "2024-06-30 12:00:00+00:00", 2024-06-30T12:00Z.
    """
    settings = connection.settings()
    # these take a second to import, and other commands don't need them
    from signalserve.features.errors import (
        FeatureError,
        NoBarFileError,
        UnknownPresetError,
    )
    from signalserve.live.bars import CsvReplay
    from signalserve.live.bootstrap import build_engine
    from signalserve.live.served_model import FeaturesMissingError, NotServedError
    from signalserve.live.snapshot import SnapshotInUseError

    configure_logs(settings.logging.model_copy(update={"level": "warning"}))
    folder = settings.live.snapshot_dir if snapshot_dir is None else snapshot_dir
    refuse_file(folder, "snapshots land in a folder")
    path = ohlcv if ohlcv is not None else _bar_file(settings, symbol, timeframe)
    printer = BarPrinter(json_output=json_output)
    warn_of_another_key(settings, path, symbol, timeframe)
    try:
        source = CsvReplay(
            path,
            timeframe=timeframe,
            start=start,
            last=bars,
            pace=pace,
        )
        with open_client(settings.client) as client:
            pipeline = _pipeline(client, settings, symbol, timeframe, model_id, preset)
            engine = build_engine(
                client,
                source,
                pipeline,
                symbol,
                timeframe,
                rules=TradingRules.of(settings.trading),
                starting_equity=settings.trading.starting_equity,
                deadline_ms=settings.client.deadline_ms,
                snapshot_dir=folder,
                model_id=model_id,
                preset=preset,
                on_bar=printer,
                settle_seconds=settle,
                hold_on=settings.live.hold_on,
            )
            notes.print(
                f"replaying {len(source):,} bars of {path} against {settings.client.target};"
                f" snapshot in {folder.resolve()}",
                soft_wrap=True,
                markup=False,
            )
            for warning in source.warnings:
                notes.print(f"note: {path.name}: {warning}", style="yellow", soft_wrap=True, markup=False)
            with ending_at_signals(engine):
                result = engine.run()
    except (NoBarFileError, UnknownPresetError, ValueError) as error:
        say_error(str(error))
        raise typer.Exit(USAGE) from None
    except NotServedError as error:
        say_error(str(error))
        raise typer.Exit(NOT_FOUND if error.unknown else REFUSED) from None
    except SnapshotInUseError as error:
        say_error(str(error))
        raise typer.Exit(REFUSED) from None
    except (FeatureError, FeaturesMissingError, OSError) as error:
        say_error(str(error))
        raise typer.Exit(FAILED) from None
    _summary(result)
    if result.unanswered and not result.stopped:
        why = result.last_error or "it is away"
        say_error(f"{result.unanswered} bars have no score from {settings.client.target}: {why}")
        raise typer.Exit(SERVER_AWAY)


class BarPrinter:
    """Prints each record that it is called with: a line of a table, or a JSON object.

    In the table the bars of the warm-up are one line, so that fifty bars of news are not lost among hundreds, and why
    bars are held is said once, until it changes. A late score's line does not repeat what its bar's line said.
    """

    def __init__(self, *, json_output: bool = False) -> None:
        self._json = json_output
        self._head_is_due = True
        self._warming = False
        self._newest: datetime | None = None
        self._held = ""

    def __call__(self, record: BarRecord) -> None:
        """Print a bar."""
        if self._json:
            print(json.dumps(plain(record), default=plain, ensure_ascii=False), flush=True)
            return
        if self._head_is_due:
            console.print(
                f"[bold]{'bar (UTC)':<16} {'close':>12} {'score':>11} {'signal':<6} {'position':<8}"
                f" {'equity':>12} {'ms':>7} model_id",
                soft_wrap=True,
            )
            self._head_is_due = False
        if record.note.endswith("warm-up of the features"):
            if not self._warming:
                console.print(f"{record.bar_time:%Y-%m-%d %H:%M} warm-up of the features ...", soft_wrap=True)
            self._warming = True
            return
        self._warming = False
        console.print(self.line(record), style=self.style(record), soft_wrap=True, markup=False)

    def line(self, record: BarRecord) -> str:
        """One bar as a line."""
        score = "-" if record.probability is None else f"{record.probability:.4f}"
        if record.value is not None:
            score = f"{10_000.0 * record.value:+.1f} bps"
        latency = "-" if record.latency_ms is None else f"{record.latency_ms:.2f}"
        note = self._news(record)
        remarks = [*(["late"] if record.late else []), *record.flags, *([note] if note else [])]
        return (
            f"{record.bar_time:%Y-%m-%d %H:%M} {record.close:>12.8g} {score:>11} {record.signal or '':<6}"
            f" {record.position:<8} {record.equity:>12.2f} {latency:>7} {record.model_id or '-'}"
            + (f"  ({'; '.join(remarks)})" if remarks else "")
        )

    def _news(self, record: BarRecord) -> str:
        """What of the note the reader has not seen on a line above."""
        if self._newest is not None and record.bar_time <= self._newest:
            _, found, why = record.note.rpartition("no score: ")
            return found and found + why
        self._newest = record.bar_time
        before, self._held = self._held, record.note if record.note.startswith("held: ") else ""
        return "held" if self._held and self._held == before else record.note

    @staticmethod
    def style(record: BarRecord) -> str:
        """The colour of a bar's line."""
        if record.signal is not None:
            return _SIGNAL_STYLES[record.signal]
        return "yellow" if record.late or not record.scored else ""


def _bar_file(settings: Settings, symbol: str, timeframe: str) -> Path:
    if settings.live.ohlcv_path is None:
        return settings.data.ohlcv_file(symbol, timeframe)
    return Path(settings.live.ohlcv_path.format(symbol=symbol, timeframe=timeframe))


def _pipeline(
    client: SignalClient,
    settings: Settings,
    symbol: str,
    timeframe: str,
    model_id: str | None,
    preset: str | None,
) -> FeaturePipeline:
    """The pipeline that the model needs; with no server to ask, the one that the configuration names."""
    from signalserve.features.pipeline import FeaturePipeline
    from signalserve.live.served_model import choose_pipeline, served_model

    try:
        chosen = choose_pipeline(served_model(client, symbol, timeframe, model_id), preset)
    except (Unavailable, DeadlineExceeded) as error:
        fallback = FeaturePipeline(preset or settings.ml.feature_preset)
        notes.print(
            f"note: the server at {client.target} is away ({error}); holding until it answers, with feature"
            f" preset {fallback.preset}",
            style="yellow",
            soft_wrap=True,
            markup=False,
        )
        return fallback
    if chosen.warning:
        notes.print(f"note: {chosen.warning}", style="yellow", soft_wrap=True, markup=False)
    return chosen.pipeline


@contextmanager
def ending_at_signals(engine: LiveEngine) -> Iterator[None]:
    """Let the first SIGINT or SIGTERM end the run cleanly; a second one does what it always did."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(number: int, _frame: object) -> None:
        signal.signal(number, before[signal.Signals(number)])
        engine.stop()

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _summary(result: LiveResult) -> None:
    counts = result.counts
    gaps = f", {counts.missing_bars} bars missing in {counts.gaps} holes" if counts.gaps else ""
    changes = f", {counts.pipeline_changes} changes of features" if counts.pipeline_changes else ""
    unknown = f" ({counts.mismatched} for want of features)" if counts.mismatched else ""
    notes.print(
        f"{'stopped' if result.stopped else 'done'}: {counts.bars:,} bars ({counts.warmup:,} of warm-up{gaps}),"
        f" {counts.answers:,} scores ({counts.late:,} late), {counts.holds:,} held{unknown},"
        f" {counts.signals:,} signals, {counts.fills:,} fills,"
        f" {counts.reconnects} reconnects ({counts.reconnect_attempts} attempts), {counts.errors} errors{changes};"
        f" {result.position}, equity {result.equity:,.2f}; model {result.used_model_id or '-'}",
        soft_wrap=True,
        markup=False,
    )
