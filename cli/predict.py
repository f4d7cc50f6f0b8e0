"""`signalserve predict`: one prediction by hand."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from signalserve.cli.connection import Connection, reaches_server
from signalserve.cli.exits import USAGE, say_error
from signalserve.cli.options import JsonOption
from signalserve.cli.output import notes, print_json, print_table


@reaches_server
def predict(
    connection: Connection,
    symbol: Annotated[str, typer.Option("--symbol", "-s", help="Symbol, e.g. BTCUSDT.")],
    timeframe: Annotated[str, typer.Option("--timeframe", help="Timeframe.")] = "15m",
    features: Annotated[
        str | None,
        typer.Option(
            help="A JSON object name -> number, a list of such objects, or @FILE with either; - is stdin."
        ),
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="A CSV file with one column a feature.")] = None,
    model_id: Annotated[str | None, typer.Option(help="Ask this model, not the key's.")] = None,
    json_output: JsonOption = False,
) -> None:
    """Ask the server for the scores of one or more rows."""
    from signalserve.client import SignalServeError

    rows = _rows(features, csv)
    with connection.open() as client:
        try:
            prediction = client.predict(symbol, timeframe, rows, model_id, deadline_ms=5_000)
        except SignalServeError:  # the server's refusals of a request are ValueErrors too
            raise
        except (TypeError, ValueError) as error:
            _refuse(f"the rows can't be sent: {error}")
    if json_output:
        print_json(prediction)
        return
    if prediction.out_of_range_features:
        notes.print(
            f"out of range: {', '.join(prediction.out_of_range_features)}", soft_wrap=True, markup=False
        )
    print_table(
        ("row", "score", "model_id", "revision", "flags", "latency_ms"),
        [
            (
                number,
                float(score),
                prediction.model_id,
                prediction.registry_revision,
                " ".join(prediction.flags),
                round(prediction.latency_ms, 2),
            )
            for number, score in enumerate(prediction.scores)
        ],
    )


def _rows(features: str | None, csv: Path | None) -> Any:
    if features is None and csv is None:
        _refuse("give the rows with --features or --csv")
    if features is not None and csv is not None:
        _refuse("--features and --csv exclude one another: give the rows with one of them")
    try:
        if csv is not None:
            import pandas as pd  # half a second, which the other commands need not wait for

            return pd.read_csv(csv)
        text = features or ""
        if text == "-":
            text = sys.stdin.read()
        elif text.startswith("@"):
            text = Path(text[1:]).read_text(encoding="utf-8")
        value = json.loads(text)
    except OSError as error:
        _refuse(f"{error.filename}: {error.strerror}")
    except ValueError as error:
        what = f"{csv} is no CSV table" if csv is not None else "the rows are no JSON"
        _refuse(f"{what}: {error}")
    rows = [value] if isinstance(value, dict) else value
    if not (isinstance(rows, list) and rows and all(isinstance(row, dict) and row for row in rows)):
        _refuse("the rows must be a JSON object name -> number, or a list of such objects")
    return rows


def _refuse(text: str) -> NoReturn:
    say_error(text)
    raise typer.Exit(USAGE)
