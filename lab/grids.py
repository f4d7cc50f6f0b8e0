"""What grid searches tried: `rf_grid_results_{symbol}_{timeframe}_{moment}.csv` in the registry's folder.

A row is a parameter set, by rank. A column is a metric where it has a metric's name, else a parameter: research code
writes other columns than we do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from signalserve.lab.files import Kept, listed, read_rows, signature
from signalserve.lab.plain import number_of_text, text_of

METRICS = (
    "accuracy",
    "auc",
    "log_loss",
    "brier",
    "precision",
    "recall",
    "base_rate",
    "accuracy_all",
    "auc_all",
    "log_loss_all",
    "brier_all",
    "base_rate_all",
    "labelled_share",
    "cum_return",
    "sharpe",
    "sharpe_se",
    "sortino",
    "bars_per_year",
    "max_drawdown",
    "trades",
    "hit_rate",
    "exposure",
    "turnover",
    "buy_hold_return",
    "probabilistic_sharpe",
)
_OWN = ("model_type", "rank", "error")
_MOMENT = re.compile(r"(\d{8}_\d{6})(?:_\d+)?\.csv")


@dataclass(frozen=True)
class GridRow:
    """One parameter set; `params` as text or number, `error` says why it could not be tried."""

    model_type: str
    rank: int | None
    params: Mapping[str, float | str | None]
    metrics: Mapping[str, float | None]
    error: str


@dataclass(frozen=True)
class Grid:
    """One search, best first; `parameters` and `metrics` are the columns in the file's order."""

    file: str
    searched: datetime | None
    parameters: tuple[str, ...]
    metrics: tuple[str, ...]
    rows: tuple[GridRow, ...]
    problem: str = ""


_kept: Kept[Grid] = Kept(64)


def grids_of(base_dir: Path, symbol: str, timeframe: str) -> tuple[Grid, ...]:
    """A key's searches, the newest first."""
    # a symbol may hold `_`: what follows the key's own prefix must be a moment, or it is another key's
    prefix = f"rf_grid_results_{symbol}_{timeframe}_"
    found: list[Grid] = []
    for entry in listed(base_dir):
        match = _MOMENT.fullmatch(entry.name[len(prefix) :]) if entry.name.startswith(prefix) else None
        if match is not None:
            path = base_dir / entry.name
            searched = _moment(match[1])
            origin = (path, signature(path))
            found.append(_kept.get(origin, partial(_grid, path, searched)))
    return tuple(sorted(found, key=lambda grid: grid.file, reverse=True))


def _grid(path: Path, searched: datetime | None) -> Grid:
    rows = read_rows(path)
    if rows.value is None:
        return Grid(path.name, searched, (), (), (), rows.problem)
    columns = list(rows.value[0]) if rows.value else []
    metrics = tuple(name for name in columns if name in METRICS)
    parameters = tuple(name for name in columns if name not in METRICS and name not in _OWN)
    found = [
        GridRow(
            model_type=text_of(row.get("model_type")),
            rank=int(rank) if (rank := number_of_text(row.get("rank"))) is not None else None,
            params={name: _parameter(row.get(name, "")) for name in parameters},
            metrics={name: number_of_text(row.get(name)) for name in metrics},
            error=text_of(row.get("error")),
        )
        for row in rows.value
    ]
    ordered = sorted(found, key=lambda row: (row.rank is None, row.rank or 0))
    return Grid(path.name, searched, parameters, metrics, tuple(ordered))


def _parameter(text: str) -> float | str | None:
    if not text:
        return None
    value = number_of_text(text)
    return text_of(text) if value is None else value


def _moment(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, "%Y%m%d_%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None
