"""`signalserve train`: one symbol and timeframe, from a bar file to a registered model."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from signalserve.cli.alone import run_alone
from signalserve.cli.exits import FAILED, USAGE, say_error
from signalserve.cli.figures import SCORES, MeasuredSpan, metric_rows, span_rows
from signalserve.cli.options import (
    ConfigOption,
    JsonOption,
    refuse_file,
    repeated,
    time_option,
    warn_of_another_key,
)
from signalserve.cli.output import console, print_json, print_table
from signalserve.common.moments import parse_moment

if TYPE_CHECKING:
    from signalserve.training.run import TrainResult

_SHOWN = (
    ("cum_return", "{:+.2%}"),
    ("sharpe", "{:.2f}"),
    ("bars_per_year", "{:,.0f}"),
    ("max_drawdown", "{:.2%}"),
    ("trades", "{:d}"),
    ("hit_rate", "{:.1%}"),
    ("exposure", "{:.1%}"),
    ("buy_hold_return", "{:+.2%}"),
    *SCORES,
    ("train_rows", "{:,d}"),
)


def train(
    symbol: Annotated[str, typer.Option(help="The symbol, such as BTCUSDT.")],
    timeframe: Annotated[str, typer.Option(help="Length of a bar: 15m, 1h, 1d.")] = "15m",
    preset: Annotated[
        str | None,
        typer.Option("--feature-preset", "--preset", help="core or extended; default ml.feature_preset."),
    ] = None,
    model_type: Annotated[str | None, typer.Option(help="A key of ml.models: rf, xgb, logreg, ...")] = None,
    grid: Annotated[
        bool, typer.Option("--grid", help="Try ml.grids first and train the best of it.")
    ] = False,
    refit: Annotated[
        bool | None,
        typer.Option(
            "--refit/--no-refit", help="Fit it on all bars, too, as a second model; default ml.refit."
        ),
    ] = None,
    lookback_days: Annotated[float | None, typer.Option(help="Use the last days of the file only.")] = None,
    train_start: Annotated[datetime | None, time_option("First bar to train on (UTC).")] = None,
    train_end: Annotated[datetime | None, time_option("Last bar that the fit may read (UTC).")] = None,
    test_start: Annotated[datetime | None, time_option("First bar to test on (UTC).")] = None,
    test_end: Annotated[datetime | None, time_option("Last bar to test on (UTC).")] = None,
    label_method: Annotated[
        str | None,
        typer.Option("--label-method", "--method", help="fixed_horizon or triple_barrier; default ml.label."),
    ] = None,
    horizon_bars: Annotated[int | None, typer.Option(help="How many bars a label reads ahead.")] = None,
    up_threshold: Annotated[
        float | None, typer.Option(help="Class 1: a return of at least this, such as 0.002.")
    ] = None,
    down_threshold: Annotated[
        float | None, typer.Option(help="Class 0: a return of at most this, such as -0.002.")
    ] = None,
    volatility_bars: Annotated[
        int | None,
        typer.Option(help="triple_barrier: thresholds are times the volatility of so many bars."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="random_state of the fit.")] = None,
    output_dir: Annotated[Path | None, typer.Option(help="The registry; default ml.models_dir.")] = None,
    ohlcv: Annotated[Path | None, typer.Option(help="Bar file; default data.ohlcv_path.")] = None,
    config: ConfigOption = None,
    json_output: JsonOption = False,
) -> None:
    """Train a model, measure it out of sample, and register it.

    It walks forward over the earlier bars in folds, fits the model on them, and tests it on the last bars, which
    no fold and no choice has seen. What is not given comes from the configuration, the label's settings from ml.label.

    A TIME is ISO 8601, and UTC unless it names a zone: 2024-06-30 (which is its midnight), 2024-06-30T12:00,
    "2024-06-30 12:00:00+00:00", 2024-06-30T12:00Z.

    Exit code 1: the run failed
    (the registry keeps a `failed` entry with the reason); 2: the request or the configuration can't be used; 130:
    Ctrl-C, and nothing is left behind. With --refit the model that is registered first stays in each case.
    """
    # these take seconds to import, which --help need not wait for
    from signalserve.config.logs import configure_logs
    from signalserve.config.settings import load_settings

    settings = load_settings(config)
    from signalserve.training.errors import TrainingError, TrainingRequestError
    from signalserve.training.progress import steps
    from signalserve.training.request import TrainRequest
    from signalserve.training.run import train as run_training

    # the table says what the registry's log line would
    configure_logs(settings.logging.model_copy(update={"level": "warning"}))
    label = {
        "method": label_method,
        "horizon_bars": horizon_bars,
        "up_threshold": up_threshold,
        "down_threshold": down_threshold,
        "volatility_bars": volatility_bars,
    }
    try:
        request = TrainRequest.from_settings(
            settings,
            symbol,
            timeframe,
            preset=preset,
            model_type=model_type,
            seed=seed,
            label=label,
            output_dir=output_dir,
            ohlcv=ohlcv,
            lookback_days=lookback_days,
            train_start=train_start,
            train_end=train_end,
            test_start=test_start,
            test_end=test_end,
            grid=grid,
            refit=refit,
        )
        # a slip of the pen is no failed training run
        if not request.ohlcv.exists() or request.ohlcv.is_dir():
            what = "is a folder, no bar file" if request.ohlcv.is_dir() else "no such file"
            say_error(f"{request.ohlcv}: {what}; give --ohlcv, or set data.ohlcv_path in the configuration")
            raise typer.Exit(USAGE)
        refuse_file(request.base_dir, "the registry is a folder")
        warn_of_another_key(settings, request.ohlcv, symbol, timeframe)
        with steps() as report:
            result = run_training(request, report=report, via="cli")
    except TrainingRequestError as error:
        say_error(str(error))
        raise typer.Exit(USAGE) from error
    except TrainingError as error:
        kept = f" (registered as failed: {error.model_id})" if error.model_id else ""
        say_error(f"{error}{kept}")
        raise typer.Exit(FAILED) from error
    if json_output:
        print_json(_as_json(result))
    else:
        _print(result, repeated(ohlcv=ohlcv, registry=output_dir, config=config))


def main() -> None:
    """Run the command on its own, as `scripts/run_ml_train_15m.py` does."""
    run_alone(train)


def _as_json(result: TrainResult) -> dict[str, Any]:
    test, folds = _spans(result)
    return {
        "status": "success",
        "model_id": result.model_id,
        "path": str(result.path),
        "engine": result.engine,
        "engine_reason": result.engine_reason,
        "digest": result.digest,
        "train_start": result.metadata.train_start,
        "train_end": result.metadata.train_end,
        "test_start": result.metadata.extra["test_start"],
        "test_end": result.metadata.extra["test_end"],
        "spans": {"test": test.to_dict(), "walk_forward": folds.to_dict()},
        "metrics": result.metrics,
        "walk_forward": result.metadata.extra["walk_forward"],
        "trials": result.metadata.extra["trials"],
        "warnings": list(result.warnings),
        "refitted": None if result.refitted is None else _refit_json(result.refitted),
    }


def _refit_json(refitted: TrainResult) -> dict[str, Any]:
    return {
        "model_id": refitted.model_id,
        "path": str(refitted.path),
        "engine": refitted.engine,
        "engine_reason": refitted.engine_reason,
        "digest": refitted.digest,
        "train_start": refitted.metadata.train_start,
        "train_end": refitted.metadata.train_end,
        "warnings": list(refitted.warnings),
    }


def _refit_text(refitted: TrainResult) -> str:
    meta = refitted.metadata
    return (
        f"{refitted.model_id} on {meta.train_start} to {meta.train_end}; it carries the evidence of the other"
    )


def _print(result: TrainResult, again: str) -> None:
    extra = result.metadata.extra
    columns = (result.metrics, extra["walk_forward"]["metrics"])
    rows = [*span_rows(_spans(result)), *metric_rows(_SHOWN, columns)]
    print_table(("metric", "test span", "walk-forward"), rows, title="Out of sample")
    trials = extra["trials"]
    results = result.path.resolve().parent / str(trials["file"])
    tried = f"{trials['count']} parameter sets, the best by {trials['metric']}; see {results}"
    for name, text in (
        *((("tried", tried),) if trials["file"] else ()),
        ("model_id", result.model_id),
        ("landed in", str(result.path.resolve())),
        ("engine", result.engine + (f" ({result.engine_reason})" if result.engine_reason else "")),
        *(("warning", note) for note in result.warnings),
        *((("refitted", _refit_text(result.refitted)),) if result.refitted else ()),
        ("next", f"signalserve evaluate {result.model_id}{again}"),
    ):
        # an id or a path that is cut to the terminal's width can't be copied
        console.print(f"{name:<10} {text}", soft_wrap=True, markup=False)


def _spans(result: TrainResult) -> tuple[MeasuredSpan, MeasuredSpan]:
    """The test span, and the bars of the folds."""
    extra, timeframe = result.metadata.extra, result.metadata.timeframe
    folds = extra["walk_forward"]["folds"]
    tested = (extra["test_start"], extra["test_end"], int(result.metrics["test_bars"] or 0))
    walked = (folds[0]["test_start"], folds[-1]["test_end"], sum(fold["test_bars"] for fold in folds))
    first, second = (
        MeasuredSpan(parse_moment(start), parse_moment(end), bars, timeframe)
        for start, end, bars in (tested, walked)
    )
    return first, second
