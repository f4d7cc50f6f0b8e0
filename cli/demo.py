"""`signalserve demo`: the whole life of a model in one run, for a person to watch."""

from __future__ import annotations

import signal
import sys
import threading
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from signalserve.cli.connection import open_client
from signalserve.cli.demo_server import (
    ServerDidNotStartError,
    demo_lab,
    demo_server,
    make_token,
    own_settings,
    write_config,
)
from signalserve.cli.exits import FAILED, USAGE, say_error
from signalserve.cli.figures import figure
from signalserve.cli.lab import INSTALL, can_open
from signalserve.cli.options import ConfigOption
from signalserve.cli.output import console, notes
from signalserve.client import FailedPrecondition, SignalClient
from signalserve.common.key import Key
from signalserve.common.moments import utc_now
from signalserve.common.timeframe import UnknownTimeframeError, timeframe_delta
from signalserve.config.logs import configure_logs
from signalserve.config.settings import Settings, load_settings
from signalserve.judging import PromoteGate
from signalserve.registry import Promotion, Registry, Status, open_registry, signer_of
from signalserve.registry.errors import GateRefusedError
from signalserve.trading.rules import TradingRules

if TYPE_CHECKING:
    from signalserve.live.records import BarRecord

SYNTHETIC_SYMBOL = "SYNTHETIC"
FOLDER = Path("outputs/demo")
_SYNTHETIC_BARS = 6_000
_SEED = 3
# the rest is replayed, so that no model is shown bars that it was trained on
_TRAIN_SHARE = 0.75
_PROMOTE_AFTER = 20
_OVERRIDE = "demo: shown in spite of the gate"


def demo(
    ohlcv: Annotated[
        Path | None, typer.Option(help="A bar file of your own; the default is labelled synthetic bars.")
    ] = None,
    symbol: Annotated[str | None, typer.Option("--symbol", "-s", help="Symbol of --ohlcv.")] = None,
    timeframe: Annotated[str, typer.Option(help="Timeframe of --ohlcv.")] = "15m",
    bars: Annotated[
        int | None, typer.Option(min=2, help="End after so many bars; the default is until Ctrl-C.")
    ] = None,
    pace: Annotated[
        float | None, typer.Option(min=0.0, help="Seconds a bar; the default is 0.02 with --bars, else 0.25.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Train, register, promote, serve, trade on paper, and swap the model in mid-run.

    Nothing leaves this machine, and no order is sent anywhere: the position is a paper one. It has a registry and
    outputs of its own in outputs/demo; the configured ones are not touched.
    """
    if (ohlcv is None) != (symbol is None):
        say_error("--ohlcv and --symbol go together: which symbol is in the file?")
        raise typer.Exit(USAGE)
    settings = own_settings(load_settings(config), FOLDER, ohlcv)
    configure_logs(settings.logging.model_copy(update={"level": "warning"}))
    # these take a second to import, which --help need not wait for
    from signalserve.features.errors import FeatureError, NoBarFileError
    from signalserve.training.errors import TrainingError

    try:
        _run(settings, ohlcv, symbol or SYNTHETIC_SYMBOL, timeframe, bars, pace)
    except (NoBarFileError, UnknownTimeframeError) as error:
        say_error(str(error))
        raise typer.Exit(USAGE) from None
    except (FeatureError, TrainingError, ServerDidNotStartError) as error:
        say_error(str(error))
        raise typer.Exit(FAILED) from None


def _run(
    settings: Settings,
    ohlcv: Path | None,
    symbol: str,
    timeframe: str,
    bars: int | None,
    pace: float | None,
) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    config = FOLDER / "system.yml"
    write_config(settings, config)
    make_token(settings)
    key = Key(symbol, timeframe)
    console.print(
        f"The demo has a registry and outputs of its own in {FOLDER.resolve()}; yours are not touched.",
        soft_wrap=True,
        markup=False,
    )
    _step(1, "Bars")
    replayed, for_training = _prepare_bars(FOLDER, ohlcv, key)
    _step(2, "First model: train, register, evaluate, promote")
    first = _champion(settings, key, for_training)
    _step(3, "Second model: train, register, evaluate; it waits for its promote")
    second = _challenger(settings, key, for_training, first)
    _step(4, "Server and ML Lab")
    with ExitStack() as stack:
        target = stack.enter_context(demo_server(settings, config, FOLDER / "server.log"))
        console.print(f"  gRPC on {target}; its log is in {FOLDER / 'server.log'}")
        if can_open():
            lab = stack.enter_context(demo_lab(config, target, FOLDER / "lab.log"))
            how = f"to promote there, log in with the token in {FOLDER / 'ops.token'}"
            console.print(f"  [bold]ML Lab on {lab}[/]: {how}", soft_wrap=True)
        else:
            console.print(f"  ML Lab, the web pages, needs more packages: {escape(INSTALL)}", soft_wrap=True)
        client = stack.enter_context(open_client(settings.client.model_copy(update={"target": target})))
        _step(5, "Live engine on paper: features -> gRPC -> strategy -> position")
        stopped = _replay(settings, client, replayed, key, second, bars, pace)
        if bars is None and not stopped:
            console.print("every bar is replayed; server and lab stay until Ctrl-C", soft_wrap=True)
            # a SIGTERM ends them as Ctrl-C does; by itself it would leave them behind
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            with suppress(KeyboardInterrupt):
                threading.Event().wait()
    console.print("server and lab stopped")
    console.print("next (and beside it lab, models, status, events or rollback in place of serve):")
    console.print(f"{quote(sys.argv[0])} serve --config {quote(str(config))}", soft_wrap=True, markup=False)


def _prepare_bars(folder: Path, ohlcv: Path | None, key: Key) -> tuple[Path, Path]:
    """The file to replay and the earlier part of it to train on."""
    import pandas as pd

    from signalserve.features.bars import read_bars
    from signalserve.features.synthetic import synthetic_bars

    whole = ohlcv
    if whole is None:
        whole = folder / f"{key.symbol}_{key.timeframe}.csv"
        # the gate asks for bars of late; a Monday, so that every run trains on the same hours of the week
        latest = pd.Timestamp(utc_now()) - _SYNTHETIC_BARS * timeframe_delta(key.timeframe)
        start = latest.normalize() - pd.Timedelta(days=latest.day_of_week)
        bars = synthetic_bars(key.symbol, _SYNTHETIC_BARS, seed=_SEED, timeframe=key.timeframe, start=start)
        bars.to_csv(whole)
        console.print(
            f"  {_SYNTHETIC_BARS:,} SYNTHETIC bars (made up, seed {_SEED}; no market's) in {whole}",
            soft_wrap=True,
        )
    read = read_bars(whole, timeframe=key.timeframe)
    frame = read.frame
    for warning in read.warnings:
        notes.print(f"  note: {whole.name}: {warning}", style="yellow", markup=False, soft_wrap=True)
    cut = int(len(frame) * _TRAIN_SHARE)
    earlier = folder / f"{key.symbol}_{key.timeframe}_train.csv"
    frame.iloc[:cut].to_csv(earlier)
    console.print(
        f"  {key}: the models train on {cut:,} bars up to {frame.index[cut - 1]:%Y-%m-%d %H:%M}Z; "
        f"{len(frame) - cut:,} later ones are left for the replay",
        soft_wrap=True,
    )
    return whole, earlier


def _registry(settings: Settings) -> Registry:
    return open_registry(
        settings.ml.models_dir,
        gate=PromoteGate.of(settings),
        signer=signer_of(settings.registry.signing_key, settings.ml.models_dir),
        unmade_is_empty=True,
    )


def _champion(settings: Settings, key: Key, bars: Path) -> str:
    registry = _registry(settings)
    current = registry.state.production(key)
    if current is not None:
        console.print(f"  {current} is in production already: no training")
        return current
    model_id = _train(settings, key, bars, _another_type(settings, settings.ml.model_type))
    _evaluate(settings, model_id, bars)
    promotion = [Promotion(model_id, "")]
    try:
        registry.promote(promotion, reason="demo: first model", via="cli")
        console.print(f"  promoted {model_id}", soft_wrap=True)
    except GateRefusedError as error:
        console.print(f"  {error}", soft_wrap=True, markup=False)
        registry.promote(promotion, reason=_OVERRIDE, force=True, via="cli")
        console.print(f"  promoted {model_id} with force, as the event says", soft_wrap=True)
    return model_id


def _challenger(settings: Settings, key: Key, bars: Path, champion: str) -> str:
    registry = _registry(settings)
    state = registry.state
    waiting = [
        entry
        for entry in registry.models(*key, statuses=(Status.SUCCESS, Status.CANDIDATE))
        if entry.model_id not in state.quarantined and state.digests.get(entry.model_id)
    ]
    if waiting:
        console.print(f"  {waiting[0].model_id} is waiting already: no training", soft_wrap=True)
        return waiting[0].model_id
    configured, trained = settings.ml.model_type, state.entries[champion].model_type
    model_id = _train(
        settings, key, bars, configured if trained != configured else _another_type(settings, trained)
    )
    _evaluate(settings, model_id, bars)
    return model_id


def _another_type(settings: Settings, model_type: str) -> str:
    types = list(settings.ml.models)
    return next((name for name in ("xgb", "rf", *types) if name in types and name != model_type), model_type)


def _evaluate(settings: Settings, model_id: str, bars: Path) -> None:
    """Compare a new model with what is in production, on bars that neither was trained on."""
    from signalserve.training.evaluation import evaluate

    result = evaluate(settings, model_id, ohlcv=bars, via="cli")
    evidence = result.evidence
    against = (
        f"P(better than {evidence.champion.model_id}) {evidence.probability_better:.2f}"
        if evidence.champion is not None
        else "no champion to compare with"
    )
    found = evidence.challenger
    error = found.moments and found.moments.annualised_error(found.sharpe)
    sharpe = figure({"sharpe": found.sharpe, "sharpe_se": error}, "sharpe", "{:.2f}")
    console.print(
        f"  evaluated on {evidence.bars:,} bars: Sharpe {sharpe}, {against}; "
        f"the gate says {'yes' if result.passed else 'no'}",
        soft_wrap=True,
    )


def _promote_in_mid_run(client: SignalClient, model_id: str) -> None:
    try:
        result = client.promote(model_id, reason="demo: swap in mid-run")
        how = ""
    except FailedPrecondition as error:
        if error.reason != "GATE_REFUSED":
            raise
        console.print(f"  {error.message}", soft_wrap=True, markup=False)
        result = client.promote(model_id, reason=_OVERRIDE, force=True)
        how = " with force"
    console.print(
        f"[bold green]promoted[/] {model_id}{how} over gRPC: registry revision {result.registry_revision}, "
        f"served revision {result.served_revision}; the next bar is answered by it",
        soft_wrap=True,
    )


def _train(settings: Settings, key: Key, bars: Path, model_type: str) -> str:
    from signalserve.training.progress import steps
    from signalserve.training.request import TrainRequest
    from signalserve.training.run import train

    request = TrainRequest.from_settings(settings, *key, model_type=model_type, ohlcv=bars)
    with steps() as report:
        result = train(request, report=report, via="cli")
    metrics = result.metrics
    names = ("auc", "auc_all", "cum_return", "sharpe")
    shown = ", ".join(f"{name} {text}" for name in names if (text := figure(metrics, name, "{:.3f}")))
    engine = result.engine + (f" ({result.engine_reason})" if result.engine_reason else "")
    console.print(f"  trained {result.model_id}: out of sample {shown}; engine {engine}", soft_wrap=True)
    console.print(f"  in {result.path}", soft_wrap=True)
    return result.model_id


def _replay(
    settings: Settings,
    client: SignalClient,
    bars_file: Path,
    key: Key,
    second: str,
    bars: int | None,
    pace: float | None,
) -> bool:
    """Replay the bars; true where somebody ended it before they did."""
    from signalserve.cli.live import BarPrinter, ending_at_signals
    from signalserve.live.bars import CsvReplay
    from signalserve.live.bootstrap import build_engine
    from signalserve.live.served_model import choose_pipeline, served_model

    later = CsvReplay(bars_file, timeframe=key.timeframe)
    last = bars if bars is not None else len(later) - int(len(later) * _TRAIN_SHARE)
    source = CsvReplay(
        bars_file,
        timeframe=key.timeframe,
        last=last,
        pace=pace if pace is not None else (0.02 if bars is not None else 0.25),
    )
    pipeline = choose_pipeline(served_model(client, *key)).pipeline
    printer = BarPrinter()
    promote_after = min(_PROMOTE_AFTER, last // 2)
    seen = Counter[str]()

    def on_bar(record: BarRecord) -> None:
        printer(record)
        seen[record.model_id or "none"] += not record.late
        if sum(seen.values()) == promote_after and not record.late:
            _promote_in_mid_run(client, second)

    engine = build_engine(
        client,
        source,
        pipeline,
        *key,
        rules=TradingRules.of(settings.trading),
        starting_equity=settings.trading.starting_equity,
        deadline_ms=settings.client.deadline_ms,
        snapshot_dir=settings.live.snapshot_dir,
        on_bar=on_bar,
        hold_on=settings.live.hold_on,
    )
    with ending_at_signals(engine):
        result = engine.run()
    console.rule()
    for model_id, count in seen.items():
        text = f"bars answered by {model_id}" if model_id != "none" else "held"
        console.print(f"  {count:>6} {text}", soft_wrap=True)
    counts = result.counts
    console.print(
        f"  {counts.bars} bars, {counts.answers} answers, {counts.holds} held, {counts.signals} signals, "
        f"{counts.fills} fills; paper equity {result.equity:,.2f} ({result.position})"
    )
    snapshot = settings.live.snapshot_dir / f"{key.symbol}_{key.timeframe}.json"
    console.print(f"  snapshot in {snapshot.resolve()}", soft_wrap=True)
    console.print(f"  registry in {settings.ml.models_dir.resolve()}", soft_wrap=True)
    return result.stopped


def _step(number: int, text: str) -> None:
    console.print(f"[bold cyan]{number}/5[/] [bold]{text}[/]")
