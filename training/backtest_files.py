"""What a backtest leaves behind: trades.csv, equity.csv, metrics.json and report.html.

The folder is built under a hidden name and renamed when whole. A repeat of a backtest replaces it; one of the same
span by other rules or bars gets a folder of its own.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

import pandas as pd

from signalserve.common.timeframe import timeframe_delta
from signalserve.registry.events import json_safe
from signalserve.trading.metrics import drawdowns
from signalserve.training.backtest_result import BacktestResult
from signalserve.training.errors import TrainingError

_METRICS_FILE = "metrics.json"


def write_backtest(result: BacktestResult) -> None:
    """Write the four files into `result.folder`.

    Raises:
        TrainingError: the folder can't be written.
    """
    from signalserve.training.report import render_report  # brings matplotlib

    folder = result.folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".building-", dir=folder.parent) as hidden:
            building = Path(hidden) / folder.name
            building.mkdir()
            trades, equity = trades_frame(result), equity_frame(result)
            trades.to_csv(building / "trades.csv", index=False)
            equity.to_csv(building / "equity.csv")
            summary = metrics_document(result)
            (building / _METRICS_FILE).write_text(
                json.dumps(summary, indent=2, allow_nan=False) + "\n", encoding="utf-8"
            )
            labels = (result.classes, result.forward_return)
            report = render_report(summary, trades, equity, labels, result.importances)
            (building / "report.html").write_text(report, encoding="utf-8")
            if folder.exists():
                os.rename(folder, Path(hidden) / "replaced")  # noqa: PTH104 - gone with the hidden folder
            building.rename(folder)
    except OSError as error:
        raise TrainingError(f"the backtest can't be written to {folder}: {error}") from error


def trades_frame(result: BacktestResult) -> pd.DataFrame:
    """A row a round trip. Times are those of the fills: a bar's open, or the last close for what was open then."""
    index, step = result.frame.index, timeframe_delta(result.bars.timeframe)
    rows = [
        {
            "entry_time": index[trade.entry_bar].isoformat(),
            "exit_time": (index[trade.exit_bar] + (step if trade.open_at_end else 0 * step)).isoformat(),
            "side": trade.side,
            "entry_price": trade.entry_price,
            "exit_price": trade.exit_price,
            "quantity": trade.quantity,
            "fees": trade.fees,
            "pnl": trade.pnl,
            "net_return": trade.net_return,
            "bars": trade.exit_bar - trade.entry_bar + int(trade.open_at_end),
            "open_at_end": trade.open_at_end,
        }
        for trade in result.simulation.trades
    ]
    return pd.DataFrame(rows, columns=list(_TRADE_COLUMNS))


def equity_frame(result: BacktestResult) -> pd.DataFrame:
    """A row a bar, by its open time; `equity` is money at its close, `drawdown` a share of the high before.

    A regressor's has its expected return in a column `value`.
    """
    equity = result.simulation.equity
    return pd.DataFrame(
        {
            "close": result.frame["close"],
            **{name: result.frame[name] for name in ("probability", "value") if name in result.frame},
            "position": result.simulation.position.astype(int),
            "equity": equity,
            "drawdown": drawdowns(equity, result.starting_equity),
        }
    )


def free_folder(result: BacktestResult) -> Path:
    """The result's folder, or one with a counter behind its name where that one holds another backtest.

    The same backtest again takes the same folder.
    """
    inputs = _inputs(result)
    names = (result.folder.name if n == 1 else f"{result.folder.name}_{n}" for n in count(1))
    return next(path for name in names if _holds(path := result.folder.with_name(name), inputs))


def _inputs(result: BacktestResult) -> dict[str, Any]:
    document = metrics_document(result)
    return {name: json_safe(document[name]) for name in ("model_digest", "data", "rules", "starting_equity")}


def _holds(folder: Path, inputs: dict[str, Any]) -> bool:
    """Whether a folder is free, or holds a backtest of these inputs."""
    try:
        held = json.loads((folder / _METRICS_FILE).read_text(encoding="utf-8"))
        return {name: held.get(name) for name in inputs} == inputs
    except OSError:
        return not os.path.lexists(folder)  # one that can't be written is the writer's to name
    except (ValueError, AttributeError):
        return False


def metrics_document(result: BacktestResult) -> dict[str, Any]:
    """The metrics, and all that is needed to get them again."""
    first, last = result.span
    length = last - first + timeframe_delta(result.bars.timeframe)
    return {
        "model_id": result.model_id,
        "model_digest": result.model.digest,
        "symbol": result.model.entry.symbol,
        "timeframe": result.bars.timeframe,
        "in_sample": result.in_sample,
        "look": {**asdict(result.counted), "text": result.counted.text},
        "span": {
            "start": first.isoformat(),
            "end": last.isoformat(),
            "bars": len(result.frame),
            "days": length.total_seconds() / 86_400,
        },
        "trained": {"start": result.model.meta.train_start, "end": result.model.meta.train_end},
        "data": {"file": result.bars.path.name, "sha256": result.bars.sha256},
        "data_warnings": [str(warning) for warning in result.bars.warnings],
        "output": result.model.predictor.output,
        "rules": result.rules.used_for([result.model.predictor.output]),
        "label": result.model.meta.label_config,
        "starting_equity": result.starting_equity,
        "final_equity": float(result.simulation.equity[-1]),
        "metrics": dict(result.metrics),
    }


_TRADE_COLUMNS = (
    "entry_time",
    "exit_time",
    "side",
    "entry_price",
    "exit_price",
    "quantity",
    "fees",
    "pnl",
    "net_return",
    "bars",
    "open_at_end",
)
