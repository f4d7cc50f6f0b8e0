"""report.html: a backtest on one page, readable offline and on paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from signalserve.trading.plausible import suspicion
from signalserve.training.plots import calibration_plot, drawdown_plot, equity_plot, importances_plot

Array = NDArray[np.float64]
_MOST_TRADES = 500
_MOST_FEATURES = 20
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

_METRICS = (
    ("cum_return", "Cumulative return", "{:+.2%}"),
    ("buy_hold_return", "Buy and hold", "{:+.2%}"),
    ("sharpe", "Sharpe (annualised)", "{:.2f}"),
    ("sortino", "Sortino (annualised)", "{:.2f}"),
    ("bars_per_year", "Bars a year", "{:,.0f}"),
    ("probabilistic_sharpe", "P(Sharpe above 0)", "{:.1%}"),
    ("max_drawdown", "Maximum drawdown", "{:.2%}"),
    ("trades", "Round trips", "{:,d}"),
    ("hit_rate", "Hit rate", "{:.1%}"),
    ("exposure", "Exposure", "{:.1%}"),
    ("turnover", "Fills a bar", "{:.4f}"),
    ("rank_ic", "Rank correlation", "{:.3f}"),
    ("sign_accuracy", "Sign right", "{:.1%}"),
)
_RULES = (
    ("proba_entry", "Entry at", "{}"),
    ("proba_exit", "Exit at", "{}"),
    ("value_entry_bps", "Entry at a return of", "{} bps"),
    ("value_exit_bps", "Exit at a return of", "{} bps"),
    ("fee_bps", "Fee a side", "{} bps"),
    ("slippage_bps", "Slippage a side", "{} bps"),
    ("warmup_bars", "Warm-up", "{} bars"),
)
# a figure over the bars that have a class, and the same over all of them; precision and recall need the classes
_SCORES = (
    ("auc", "AUC", "{:.3f}"),
    ("accuracy", "Accuracy", "{:.1%}"),
    ("base_rate", "Share of class 1", "{:.1%}"),
    ("log_loss", "Log loss", "{:.4f}"),
    ("brier", "Brier score", "{:.4f}"),
    ("precision", "Precision", "{:.1%}"),
    ("recall", "Recall", "{:.1%}"),
)


def render_report(
    summary: Mapping[str, Any],
    trades: pd.DataFrame,
    equity: pd.DataFrame,
    labels: tuple[Array, Array],
    importances: Sequence[tuple[str, float]],
) -> str:
    """The page, from what metrics.json, trades.csv and equity.csv hold.

    Args:
        summary: metrics.json.
        trades: trades.csv.
        equity: equity.csv, n rows.
        labels: class and return of each bar by the model's label, float64 [n]; NaN unknown.
        importances: features with their shares, the largest first.
    """
    probability = equity["probability"].to_numpy()
    classes, forward = labels
    scored = np.isfinite(probability)
    known, come = scored & np.isfinite(classes), scored & np.isfinite(forward)
    rose = (forward[come] > 0.0).astype(np.float64)
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
        rules=_rules(summary["rules"]),
        metrics=[
            (title, *_figure(metrics, name, pattern)) for name, title, pattern in _METRICS if name in metrics
        ],
        scores=[
            (title, _figure(metrics, name, pattern), _figure(metrics, f"{name}_all", pattern))
            for name, title, pattern in _SCORES
            if name in metrics
        ],
        equity_plot=equity_plot(equity, summary["starting_equity"]),
        drawdown_plot=drawdown_plot(equity),
        calibration_plot=calibration_plot(
            (probability[known], classes[known]), (probability[come], rose) if come.any() else None
        )
        if known.any()
        else None,
        labelled=int(known.sum()),
        come=int(come.sum()),
        importances=importances[:_MOST_FEATURES],
        importances_plot=importances_plot(importances[:_MOST_FEATURES]) if importances else None,
        hidden_features=max(0, len(importances) - _MOST_FEATURES),
        months=_MONTHS,
        years=_monthly(equity["equity"], summary["starting_equity"]),
        trades=trades.tail(_MOST_TRADES).to_dict("records"),
        hidden_trades=max(0, len(trades) - _MOST_TRADES),
    )


def _rules(rules: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was traded by: sides first; a rule without a title here goes by its name."""
    titles = {name: (title, pattern) for name, title, pattern in _RULES}
    found = [("Sides", "long and short" if rules["allow_short"] else "long or flat")]
    for name, value in rules.items():
        if name != "allow_short":
            title, pattern = titles.get(name, (name, "{}"))
            found.append((title, pattern.format(value)))
    return found


def _figure(metrics: Mapping[str, Any], name: str, pattern: str) -> tuple[str, str]:
    """A metric as the page writes it, a Sharpe ratio with its standard error, and what is to be doubted of it."""
    value = metrics.get(name)
    if value is None:
        return "-", ""
    text, error = pattern.format(value), metrics.get("sharpe_se")
    if name == "sharpe" and error is not None:
        text = f"{text} ± {error:.2f}"
    return text, suspicion(name, value)


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
