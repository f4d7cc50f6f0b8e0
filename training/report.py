"""report.html: a backtest on one page, readable offline and on paper."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from signalserve.training.plots import calibration_plot, drawdown_plot, equity_plot

_MOST_TRADES = 500
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

_METRICS = (
    ("cum_return", "Cumulative return", "{:+.2%}"),
    ("buy_hold_return", "Buy and hold", "{:+.2%}"),
    ("sharpe", "Sharpe (annualised)", "{:.2f}"),
    ("sortino", "Sortino (annualised)", "{:.2f}"),
    ("probabilistic_sharpe", "P(Sharpe above 0)", "{:.1%}"),
    ("max_drawdown", "Maximum drawdown", "{:.2%}"),
    ("trades", "Round trips", "{:,d}"),
    ("hit_rate", "Hit rate", "{:.1%}"),
    ("exposure", "Exposure", "{:.1%}"),
    ("turnover", "Fills a bar", "{:.4f}"),
    ("rank_ic", "Rank correlation", "{:.3f}"),
    ("sign_accuracy", "Sign right", "{:.1%}"),
    ("auc", "AUC", "{:.3f}"),
    ("log_loss", "Log loss", "{:.4f}"),
    ("brier", "Brier score", "{:.4f}"),
    ("accuracy", "Accuracy", "{:.1%}"),
    ("precision", "Precision", "{:.1%}"),
    ("recall", "Recall", "{:.1%}"),
)


def render_report(
    summary: Mapping[str, Any], trades: pd.DataFrame, equity: pd.DataFrame, classes: NDArray[np.float64]
) -> str:
    """The page, from what metrics.json, trades.csv and equity.csv hold; `classes` float64 [n], NaN unknown."""
    probability = equity["probability"].to_numpy()
    known = np.isfinite(classes) & np.isfinite(probability)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    metrics = summary["metrics"]
    return environment.get_template("backtest.html.j2").render(
        summary=summary,
        metrics=[
            (title, "-" if metrics[name] is None else pattern.format(metrics[name]))
            for name, title, pattern in _METRICS
            if name in metrics
        ],
        equity_plot=equity_plot(equity, summary["starting_equity"]),
        drawdown_plot=drawdown_plot(equity),
        calibration_plot=calibration_plot(probability[known], classes[known]) if known.any() else None,
        labelled=int(known.sum()),
        months=_MONTHS,
        years=_monthly(equity["equity"], summary["starting_equity"]),
        trades=trades.tail(_MOST_TRADES).to_dict("records"),
        hidden_trades=max(0, len(trades) - _MOST_TRADES),
    )


def _monthly(equity: pd.Series, starting_equity: float) -> list[dict[str, Any]]:
    """A row a year: the return of each month, None where there are no bars, and of the year."""
    index = pd.DatetimeIndex(equity.index)
    ends = equity.groupby([index.year, index.month]).last()
    months = [(int(year), int(month)) for year, month in ends.index.to_list()]
    rows: list[dict[str, Any]] = []
    before = starting_equity
    for (year, month), value in zip(months, ends.to_list(), strict=True):
        if not rows or rows[-1]["year"] != year:
            rows.append({"year": year, "months": [None] * 12, "start": before})
        rows[-1]["months"][month - 1] = value / before - 1.0 if before > 0.0 else 0.0
        rows[-1]["total"] = value / rows[-1]["start"] - 1.0 if rows[-1]["start"] > 0.0 else 0.0
        before = value
    return rows
