"""`signalserve backtest`: a registered model over bars that it was not trained on."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError

from signalserve.cli.alone import run_alone
from signalserve.cli.exits import FAILED, REFUSED, STORAGE, USAGE, say_error
from signalserve.cli.figures import SCORES, MeasuredSpan, metric_rows, span_rows
from signalserve.cli.options import (
    ConfigOption,
    JsonOption,
    RegistryOption,
    existing_registry,
    refuse_file,
    time_option,
    warn_of_another_key,
)
from signalserve.cli.output import console, notes, print_json, print_table
from signalserve.config.logs import configure_logs
from signalserve.config.settings import Settings, load_settings

if TYPE_CHECKING:
    from signalserve.training.backtest_result import BacktestResult

_SHOWN = (
    ("cum_return", "{:+.2%}"),
    ("buy_hold_return", "{:+.2%}"),
    ("sharpe", "{:.2f}"),
    ("bars_per_year", "{:,.0f}"),
    ("sortino", "{:.2f}"),
    ("probabilistic_sharpe", "{:.1%}"),
    ("max_drawdown", "{:.2%}"),
    ("trades", "{:,d}"),
    ("hit_rate", "{:.1%}"),
    ("exposure", "{:.1%}"),
    ("turnover", "{:.4f}"),
    ("rank_ic", "{:.3f}"),
    ("sign_accuracy", "{:.3f}"),
    *SCORES,
)


def main() -> None:
    """Run the command on its own, as `scripts/run_ml_backtest_15m.py` does."""
    run_alone(backtest)


def backtest(
    symbol: Annotated[str, typer.Option("--symbol", "-s", help="The symbol, such as BTCUSDT.")],
    timeframe: Annotated[str, typer.Option(help="Length of a bar: 15m, 1h, 1d.")] = "15m",
    model_id: Annotated[str | None, typer.Option(help="A registered model; default: in production.")] = None,
    ohlcv: Annotated[Path | None, typer.Option(help="Bar file; default data.ohlcv_path.")] = None,
    start: Annotated[datetime | None, time_option("First bar (UTC); default: after the training.")] = None,
    end: Annotated[datetime | None, time_option("Last bar (UTC); default: the file's.")] = None,
    allow_in_sample: Annotated[
        bool, typer.Option("--allow-in-sample", help="Allow bars of the training span, and mark the result.")
    ] = False,
    unrecorded: Annotated[
        bool,
        typer.Option(
            "--unrecorded",
            help="Where the registry can't be written, go on, and mark the result: nobody counts the look.",
        ),
    ] = False,
    proba_entry: Annotated[float | None, typer.Option(help="Default trading.proba_entry.")] = None,
    proba_exit: Annotated[float | None, typer.Option(help="Default trading.proba_exit.")] = None,
    value_entry_bps: Annotated[
        float | None,
        typer.Option(
            help="Of a regressor: the expected return, in basis points; default trading.value_entry_bps."
        ),
    ] = None,
    value_exit_bps: Annotated[float | None, typer.Option(help="Default trading.value_exit_bps.")] = None,
    fee_bps: Annotated[float | None, typer.Option(help="A side; default trading.fee_bps.")] = None,
    slippage_bps: Annotated[float | None, typer.Option(help="A side; default trading.slippage_bps.")] = None,
    warmup_bars: Annotated[
        int | None, typer.Option(help="Bars without a signal; default trading.warmup_bars.")
    ] = None,
    allow_short: Annotated[
        bool | None, typer.Option("--allow-short/--long-only", help="Default trading.allow_short.")
    ] = None,
    output_dir: Annotated[Path | None, typer.Option(help="Default backtest.output_dir.")] = None,
    registry: RegistryOption = None,
    config: ConfigOption = None,
    json_output: JsonOption = False,
) -> None:
    """Trade a model's signals on past bars and write trades, equity, metrics and a report.

    Each is a look at the bars after the training: it goes into the registry's log, and the promote gate asks for more.

    A classifier trades by --proba-entry and --proba-exit, a regressor by --value-entry-bps and --value-exit-bps; the
    other's thresholds are refused.

    A TIME is ISO 8601, and UTC unless it names a zone: 2024-06-30 (which is its midnight), 2024-06-30T12:00,
    "2024-06-30 12:00:00+00:00", 2024-06-30T12:00Z.
    """
    rules = {
        "proba_entry": proba_entry,
        "proba_exit": proba_exit,
        "value_entry_bps": value_entry_bps,
        "value_exit_bps": value_exit_bps,
        "fee_bps": fee_bps,
        "slippage_bps": slippage_bps,
        "warmup_bars": warmup_bars,
        "allow_short": allow_short,
    }
    settings = _with_rules(load_settings(config), trading=rules)
    # these take seconds to import, and other commands don't need them
    from signalserve.training.backtest import BacktestRequest
    from signalserve.training.backtest import backtest as run_backtest
    from signalserve.training.errors import (
        InSampleError,
        TrainingError,
        TrainingRequestError,
        UnrecordedError,
    )
    from signalserve.training.progress import steps

    configure_logs(settings.logging.model_copy(update={"level": "warning"}))
    request = BacktestRequest.from_settings(
        settings,
        symbol,
        timeframe,
        model_id=model_id,
        ohlcv=ohlcv,
        start=start,
        end=end,
        allow_in_sample=allow_in_sample,
        unrecorded=unrecorded,
        output_dir=output_dir,
        base_dir=existing_registry(settings, registry),
        asked=[name for name, value in rules.items() if value is not None],
    )
    refuse_file(request.output_dir, "backtests land in a folder")
    warn_of_another_key(settings, request.ohlcv, symbol, timeframe)
    try:
        with steps() as report:
            result = run_backtest(request, report, via="cli")
    except InSampleError as error:
        say_error(str(error))
        raise typer.Exit(REFUSED) from error
    except UnrecordedError as error:
        say_error(str(error))
        raise typer.Exit(STORAGE) from error
    except TrainingRequestError as error:
        say_error(str(error))
        raise typer.Exit(USAGE) from error
    except TrainingError as error:
        say_error(str(error))
        raise typer.Exit(FAILED) from error
    if json_output:
        from signalserve.training.backtest_files import metrics_document

        print_json({**metrics_document(result), "folder": str(result.folder)})
    else:
        _print(result)


def _with_rules(settings: Settings, **sections: dict[str, Any]) -> Settings:
    """The settings with what was given, checked like the file's."""
    given = {
        name: {key: value for key, value in values.items() if value is not None}
        for name, values in sections.items()
    }
    try:
        return settings.model_copy(
            update={
                name: type(section).model_validate({**section.model_dump(), **values})
                for name, values in given.items()
                if values and (section := getattr(settings, name))
            }
        )
    except ValidationError as error:
        for item in error.errors():
            name, text = ".".join(map(str, item["loc"])), item["msg"].removeprefix("Value error, ")
            # a rule over several values would show its whole section, which nobody typed
            say_error(f"{name}: {text}, found {item['input']!r}" if name else text)
        raise typer.Exit(USAGE) from None


def _print(result: BacktestResult) -> None:
    if result.in_sample:
        notes.print("[bold red]in sample:[/] the model was trained on bars of this span", soft_wrap=True)
    if result.counted.state == "not_recorded":
        notes.print("[bold red]not recorded:[/] nobody counts this look at the bars", soft_wrap=True)
    span = MeasuredSpan(*result.span, len(result.frame), result.bars.timeframe)
    rows = [*span_rows([span]), *metric_rows(_SHOWN, [result.metrics])]
    print_table(("metric", "in sample" if result.in_sample else "out of sample"), rows)
    for name, text in (
        ("model_id", result.model_id),
        ("looks", result.counted.text),
        *(("warning", str(warning)) for warning in result.bars.warnings),
        ("landed in", str(result.folder.resolve())),
        ("look at", str((result.folder / "report.html").resolve())),
    ):
        console.print(f"{name:<10} {text}", soft_wrap=True, markup=False)
