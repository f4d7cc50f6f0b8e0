"""What a backtest leaves behind: trades.csv, equity.csv, metrics.json and report.html.

The folder is built under a hidden name and renamed when whole; a repeat of a backtest replaces it.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from features.timeframe import timeframe_delta
from training.errors import TrainingError

if TYPE_CHECKING:
    from training.backtest import BacktestResult


def write_backtest(result: BacktestResult) -> None:
    """Write the four files into `result.folder`.

    Raises:
        TrainingError: the folder can't be written.
    """
    from training.report import render_report  # brings matplotlib

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
            (building / "metrics.json").write_text(
                json.dumps(summary, indent=2, allow_nan=False) + "\n", encoding="utf-8"
            )
            report = render_report(summary, trades, equity, result.classes)
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
    """A row a bar, by its open time; `equity` is money at its close, `drawdown` a share of the high before."""
    equity = result.simulation.equity
    high = np.maximum.accumulate(np.concatenate(([result.starting_equity], equity)))[1:]
    return pd.DataFrame(
        {
            "close": result.frame["close"],
            "probability": result.frame["probability"],
            "position": result.simulation.position.astype(int),
            "equity": equity,
            "drawdown": 1.0 - equity / high,
        }
    )


def metrics_document(result: BacktestResult) -> dict[str, Any]:
    """The metrics, and all that is needed to get them again."""
    first, last = result.span
    return {
        "model_id": result.model_id,
        "model_digest": result.model.digest,
        "symbol": result.model.entry.symbol,
        "timeframe": result.bars.timeframe,
        "in_sample": result.in_sample,
        "span": {"start": first.isoformat(), "end": last.isoformat(), "bars": len(result.frame)},
        "trained": {"start": result.model.meta.train_start, "end": result.model.meta.train_end},
        "data": {"file": result.bars.path.name, "sha256": result.bars.sha256},
        "data_warnings": [str(warning) for warning in result.bars.warnings],
        "rules": asdict(result.rules),
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
