"""A backtest's figures, computed again from its trades.csv and the closes alone."""

from __future__ import annotations

import html
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn import metrics

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
    found = re.findall(
        r"<dt>(.*?)</dt><dd>(.*?)</dd>", report.read_text().partition('class="grid figures"')[2]
    )
    return {html.unescape(title): re.sub(" <span.*", "", html.unescape(value)) for title, value in found}


def scores_in(report: Path) -> dict[str, tuple[str, ...]]:
    """The scores of report.html by their titles: over the labelled bars, and over all."""
    table = report.read_text().partition('class="scores"')[2].partition("</table>")[0]
    rows = [re.findall(r"<td>([^<]*?)(?: <span.*?)?</td>", row) for row in table.split("<tr>")]
    return {row[0]: tuple(row[1:]) for row in rows if row}


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
    "probabilistic_sharpe": ("P(Sharpe above 0)", "{:.1%}"),
    "bars_per_year": ("Bars a year", "{:,.0f}"),
}


CLASSIFIED = {
    "auc": ("AUC", "{:.3f}"),
    "log_loss": ("Log loss", "{:.4f}"),
    "brier": ("Brier score", "{:.4f}"),
    "accuracy": ("Accuracy", "{:.1%}"),
    "base_rate": ("Share of class 1", "{:.1%}"),
    "precision": ("Precision", "{:.1%}"),
    "recall": ("Recall", "{:.1%}"),
}
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def probabilistic_sharpe_of(equity: pd.Series, start: float) -> float:
    """P(Sharpe ratio above 0), by the paper's formula and scipy's moments."""
    returns = equity.to_numpy() / np.concatenate(([start], equity.to_numpy()[:-1])) - 1.0
    ratio = returns.mean() / returns.std(ddof=1)
    shape = 1 - stats.skew(returns) * ratio + (stats.kurtosis(returns, fisher=False) - 1) / 4 * ratio**2
    return float(stats.norm.cdf(ratio * np.sqrt(len(returns) - 1) / np.sqrt(shape)))


def sharpe_error_of(equity: pd.Series, start: float) -> float:
    """Standard error of the annualised Sharpe ratio, by Mertens' formula and scipy's moments."""
    returns = equity.to_numpy() / np.concatenate(([start], equity.to_numpy()[:-1])) - 1.0
    ratio = returns.mean() / returns.std(ddof=1)
    shape = 1 - stats.skew(returns) * ratio + (stats.kurtosis(returns, fisher=False) - 1) / 4 * ratio**2
    return float(np.sqrt(shape / (len(returns) - 1) * BARS_PER_YEAR))


def classified_of(probability: pd.Series, close: pd.Series, label: dict[str, Any]) -> dict[str, float]:
    """The classifier's figures, by the fixed horizon's label and by the return's sign; `close` ends with the file."""
    ahead = close.shift(-label["horizon_bars"]) / close - 1.0
    up, down = ahead >= label["up_threshold"], ahead <= label["down_threshold"]
    known, come = (up | down) & probability.notna(), ahead.notna() & probability.notna()
    figures = scores_of(up[known].astype(int), probability[known])
    every = scores_of((ahead[come] > 0).astype(int), probability[come])
    figures |= {f"{name}_all": value for name, value in every.items() if name not in ("precision", "recall")}
    return figures | {"labelled_share": float(known.sum() / come.sum())}


def scores_of(truth: pd.Series, said: pd.Series) -> dict[str, float]:
    """The figures of probabilities against what came."""
    guess = said >= 0.5
    return {
        "auc": float(metrics.roc_auc_score(truth, said)),
        "log_loss": float(-np.log(np.where(truth == 1, said, 1 - said)).mean()),
        "brier": float(((said - truth) ** 2).mean()),
        "accuracy": float((guess == (truth == 1)).mean()),
        "base_rate": float(truth.mean()),
        "precision": float(truth[guess].mean()),
        "recall": float(guess[truth == 1].mean()),
    }


def months_in(report: Path) -> dict[str, list[str]]:
    """The table of monthly returns: a year's twelve cells and its total."""
    text = report.read_text()
    table = re.findall(r"<table.*?</table>", text[text.index("Monthly returns") :], re.DOTALL)[0]
    rows = re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)[1:]
    cells = [
        [html.unescape(cell).strip() for cell in re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row)] for row in rows
    ]
    return {row[0]: row[1:] for row in cells}


def check_report(folder: Path, summary: dict[str, Any], close: pd.Series) -> None:
    """Every figure of metrics.json and of the page, against the trades; `close` covers the span, to the file's end."""
    trades = pd.read_csv(folder / "trades.csv")
    fee, start = summary["rules"]["fee_bps"] / 1e4, summary["starting_equity"]
    equity = equity_of(trades, close, start, fee)
    written = pd.read_csv(folder / "equity.csv", index_col="timestamp", parse_dates=True)
    figures = figures_of(trades, close, start, fee)
    figures["probabilistic_sharpe"] = probabilistic_sharpe_of(equity, start)
    figures |= {"sharpe_se": sharpe_error_of(equity, start), "bars_per_year": BARS_PER_YEAR}
    page = shown_in(folder / "report.html")
    assert {title for title, _ in SHOWN.values()} == set(page)
    scored = classified_of(written["probability"], close, summary["label"])
    for name, value in (figures | scored).items():
        assert summary["metrics"][name] == pytest.approx(value, rel=1e-9), name
    for name, (title, pattern) in SHOWN.items():
        error = f" ± {figures['sharpe_se']:.2f}" if name == "sharpe" else ""
        assert page[title] == pattern.format(figures[name]) + error, title
    assert scores_in(folder / "report.html") == {
        title: tuple(pattern.format(scored[key]) if key in scored else "-" for key in (name, f"{name}_all"))
        for name, (title, pattern) in CLASSIFIED.items()
    }
    ends = equity.groupby([equity.index.year, equity.index.month]).last()
    returns = ends / ends.shift(fill_value=start) - 1.0
    table = months_in(folder / "report.html")
    assert {
        (int(year), month) for year, cells in table.items() for month in range(1, 13) if cells[month - 1]
    } == set(ends.index)
    for (year, month), value in returns.items():
        assert table[str(year)][month - 1] == f"{value:+.1%}", (year, MONTHS[month - 1])
