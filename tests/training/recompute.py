"""A backtest's figures, computed again from its trades.csv and the closes alone."""

from __future__ import annotations

import html
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

BARS_PER_YEAR = 4 * 24 * 365
STEP = pd.Timedelta("15min")


def equity_of(trades: pd.DataFrame, close: pd.Series, start: float, fee: float) -> pd.Series:
    """Money at each close, from the fills: cash, and what is held at the close's price."""
    cash = pd.Series(0.0, index=close.index)
    held = pd.Series(0.0, index=close.index)
    for trade in trades.itertuples():
        sign = 1.0 if trade.side == "long" else -1.0
        entry = pd.Timestamp(trade.entry_time)
        # what is closed at the last close is booked on the last bar
        leave = min(pd.Timestamp(trade.exit_time), close.index[-1])
        cash[entry] -= sign * trade.quantity * trade.entry_price + trade.quantity * trade.entry_price * fee
        held[entry] += sign * trade.quantity
        cash[leave] += sign * trade.quantity * trade.exit_price - trade.quantity * trade.exit_price * fee
        held[leave] -= sign * trade.quantity
    return start + cash.cumsum() + held.cumsum() * close


def figures_of(trades: pd.DataFrame, close: pd.Series, start: float, fee: float) -> dict[str, float]:
    """The strategy's figures by the names of metrics.json."""
    equity = equity_of(trades, close, start, fee)
    returns = equity.to_numpy() / np.concatenate(([start], equity.to_numpy()[:-1])) - 1.0
    high = np.maximum.accumulate(np.concatenate(([start], equity.to_numpy())))[1:]
    downside = math.sqrt(float((np.minimum(returns, 0.0) ** 2).mean()))
    year = math.sqrt(BARS_PER_YEAR)
    spans = pd.to_datetime(trades["exit_time"]) - pd.to_datetime(trades["entry_time"])
    # a gap in the data is time, but no bar: count bars by the index
    bars = [
        int(
            (
                (close.index >= pd.Timestamp(row.entry_time)) & (close.index < pd.Timestamp(row.exit_time))
            ).sum()
        )
        for row in trades.itertuples()
    ]
    assert (spans >= pd.Timedelta(0)).all()
    return {
        "cum_return": float(equity.iloc[-1] / start - 1.0),
        "buy_hold_return": float(close.iloc[-1] / close.iloc[0] - 1.0),
        "sharpe": float(returns.mean() / returns.std(ddof=1) * year),
        "sortino": float(returns.mean() / downside * year),
        "max_drawdown": float((1.0 - equity.to_numpy() / high).max()),
        "trades": len(trades),
        "hit_rate": float((trades["pnl"] > 0).mean()),
        "exposure": sum(bars) / len(close),
        "turnover": 2 * len(trades) / len(close),
    }


def shown_in(report: Path) -> dict[str, str]:
    """The figures of report.html, by their titles."""
    found = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", report.read_text())
    return {html.unescape(title): html.unescape(value) for title, value in found}


SHOWN = {
    "cum_return": ("Cumulative return", "{:+.2%}"),
    "buy_hold_return": ("Buy and hold", "{:+.2%}"),
    "sharpe": ("Sharpe (annualised)", "{:.2f}"),
    "sortino": ("Sortino (annualised)", "{:.2f}"),
    "max_drawdown": ("Maximum drawdown", "{:.2%}"),
    "trades": ("Round trips", "{:,d}"),
    "hit_rate": ("Hit rate", "{:.1%}"),
    "exposure": ("Exposure", "{:.1%}"),
    "turnover": ("Fills a bar", "{:.4f}"),
}


def check_report(folder: Path, summary: dict, close: pd.Series) -> None:  # type: ignore[type-arg]  # plain JSON
    """Every figure of metrics.json and of the page, against the trades; `close` covers the span."""
    trades = pd.read_csv(folder / "trades.csv")
    fee = summary["rules"]["fee_bps"] / 1e4
    figures = figures_of(trades, close, summary["starting_equity"], fee)
    page = shown_in(folder / "report.html")
    for name, value in figures.items():
        assert summary["metrics"][name] == pytest.approx(value, rel=1e-9), name
        title, pattern = SHOWN[name]
        assert page[title] == pattern.format(value), title
