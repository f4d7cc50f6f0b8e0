"""Metrics as commands print them: a row a metric, a column a span of bars, the span named above its figures.

1. A Sharpe ratio has its standard error beside it: `1.20 ± 0.85`.
2. A figure that is too good to be true says so (`trading.plausible`).
3. What is measured only on the bars that have a class says so, since their future chose them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from signalserve.common.timeframe import timeframe_seconds
from signalserve.trading.plausible import suspicion

_OF_LABELLED_BARS = frozenset({"auc", "accuracy", "log_loss", "brier", "precision", "recall", "base_rate"})
SCORES = (
    ("auc", "{:.3f}"),
    ("auc_all", "{:.3f}"),
    ("accuracy", "{:.3f}"),
    ("accuracy_all", "{:.3f}"),
    ("base_rate", "{:.3f}"),
    ("base_rate_all", "{:.3f}"),
    ("log_loss", "{:.4f}"),
    ("log_loss_all", "{:.4f}"),
    ("brier", "{:.4f}"),
    ("brier_all", "{:.4f}"),
    ("precision", "{:.3f}"),
    ("recall", "{:.3f}"),
    ("labelled_share", "{:.1%}"),
)
"""The metrics of scores, and how each is written."""


@dataclass(frozen=True)
class MeasuredSpan:
    """Which bars some figures are of: open times of the first and the last one, how many, and their timeframe."""

    first: datetime
    last: datetime
    bars: int
    timeframe: str

    @property
    def days(self) -> float:
        """From the first bar's open to the last one's close."""
        return ((self.last - self.first).total_seconds() + timeframe_seconds(self.timeframe)) / 86_400

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        start, end = self.first.isoformat(), self.last.isoformat()
        return {"start": start, "end": end, "bars": self.bars, "days": self.days}


def span_rows(spans: Sequence[MeasuredSpan | None]) -> list[tuple[str | None, ...]]:
    """The rows that name each column's span, in UTC."""
    texts: list[tuple[str | None, ...]] = [
        (f"{span.first:%Y-%m-%d %H:%M}", f"{span.last:%Y-%m-%d %H:%M}", f"{span.bars:,}", f"{span.days:,.1f}")
        if span is not None
        else (None,) * 4
        for span in spans
    ]
    return [
        (title, *row) for title, *row in zip(("first bar", "last bar", "bars", "days"), *texts, strict=True)
    ]


def metric_rows(
    shown: Iterable[tuple[str, str]], columns: Sequence[Mapping[str, Any]]
) -> list[tuple[str | None, ...]]:
    """A row for each name and format of `shown` that any column has, with its figures; None where one is unknown."""
    return [
        (_title(name), *(figure(values, name, pattern) for values in columns))
        for name, pattern in shown
        if any(name in values for values in columns)
    ]


def figure(values: Mapping[str, Any], name: str, pattern: str) -> str | None:
    """A metric, a Sharpe ratio with its standard error, and what is to be doubted of it; None where it is unknown."""
    value, error = values.get(name), values.get("sharpe_se")
    if value is None:
        return None
    text = pattern.format(value)
    if name == "sharpe" and error is not None:
        text = f"{text} ± {pattern.format(error)}"
    doubt = suspicion(name, value)
    return f"{text} ({doubt})" if doubt else text


def _title(name: str) -> str:
    if name in _OF_LABELLED_BARS:
        return f"{name} (labelled bars)"
    return f"{name} (all bars)" if name.endswith("_all") else name
