"""What the charts are drawn of: read models as plain columns, named and in the unit that is shown.

The scripts draw; they choose no data and compute no figure that a table of the page does not have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from signalserve.lab.backtests import Series
from signalserve.lab.calibration import PARTS, Calibration
from signalserve.lab.compare import Comparison
from signalserve.lab.findings import Timed
from signalserve.lab.grids import Grid
from signalserve.lab.history import History
from signalserve.lab.importances import Importances
from signalserve.lab.live import LiveEngine
from signalserve.lab.overlay import Distribution
from signalserve.lab.pages.formats import anything, title_of
from signalserve.lab.timing import TimingDistribution

MOST_TRADES_DRAWN = 400
# what people ask of a model before anything else
_FIRST = ("sharpe", "cum_return", "auc", "max_drawdown", "probabilistic_sharpe", "log_loss", "brier")


def importances_chart(found: Importances) -> dict[str, Any]:
    """Shares in percent, the largest first."""
    return {
        "features": [item.feature for item in found.items],
        "shares": [round(100.0 * item.importance, 4) for item in found.items],
    }


def equity_chart(series: Series) -> dict[str, Any]:
    """Equity and buy-and-hold in money, drawdown in percent below zero, positions and trades."""
    return {
        "times": series.times,
        "equity": _rounded(series.equity, 2),
        "buy_hold": _rounded(series.buy_hold, 2),
        "drawdown": [None if fall is None else round(-100.0 * fall, 4) for fall in series.drawdown],
        "holdings": [[item.start, item.end, item.side] for item in series.holdings[:MOST_TRADES_DRAWN]],
        "trades": [
            {
                "entry": item.entry_time,
                "exit": item.exit_time,
                "side": item.side,
                "entry_price": anything(item.entry_price),
                "exit_price": anything(item.exit_price),
            }
            for item in series.trades[:MOST_TRADES_DRAWN]
        ],
        "start": series.backtest.starting_equity,
    }


def calibration_chart(found: Calibration) -> list[dict[str, Any]]:
    """For each part the bins that have bars."""
    return [
        {
            "name": PARTS.get(part.name, part.name),
            "said": _rounded([item.mean_probability for item in part.bins if item.bars], 4),
            "came": _rounded([item.share for item in part.bins if item.bars], 4),
            "bars": [item.bars for item in part.bins if item.bars],
        }
        for part in found.parts
    ]


def overlay_chart(found: Comparison) -> dict[str, Any]:
    """Growth of 1 a model, and of buy-and-hold."""
    overlay = found.overlay
    return {
        "times": overlay.times,
        "curves": [
            {"name": row.model_id, "equity": _rounded(curve, 6)}
            for row, curve in zip(found.rows, overlay.equity, strict=False)
        ],
        "buy_hold": _rounded(overlay.buy_hold, 6),
    }


def distribution_chart(found: Distribution) -> dict[str, Any]:
    """Resampled means in basis points a bar."""
    return {
        "edges": [round(10_000.0 * edge, 6) for edge in found.edges],
        "counts": found.counts,
        "observed": round(10_000.0 * found.observed, 6),
        "low": round(10_000.0 * found.low, 6),
        "high": round(10_000.0 * found.high, 6),
        "probability": found.probability,
    }


def timing_chart(found: TimingDistribution) -> dict[str, Any]:
    """Mean gains of the shifted copies in basis points a bar."""
    return {
        "edges": [round(10_000.0 * edge, 6) for edge in found.edges],
        "counts": found.counts,
        "observed": round(10_000.0 * found.observed, 6),
        "shifted": round(10_000.0 * found.shifted_mean, 6),
        "low": round(10_000.0 * found.low, 6),
        "high": round(10_000.0 * found.high, 6),
    }


def interval_chart(timings: Sequence[Timed]) -> list[dict[str, Any]]:
    """For each model where nine in ten of its copies lie and its own mean gain, in basis points a bar."""
    return [
        {
            "name": item.model_id,
            "low": round(10_000.0 * item.low, 6),
            "high": round(10_000.0 * item.high, 6),
            "own": round(10_000.0 * item.mean, 6),
        }
        for item in timings
    ]


def history_metrics(found: History) -> list[str]:
    """The metrics that the models of a key have, those that people ask for first at the front."""
    known = {name for model in found.models for name, value in model.metrics.items() if value is not None}
    known |= {"sharpe", "cum_return"}
    return [name for name in _FIRST if name in known] + sorted(known.difference(_FIRST))


def history_chart(found: History) -> dict[str, Any]:
    """Each retrain with its metrics, the bands of production, and the decisions."""
    metrics = history_metrics(found)
    return {
        "metrics": [{"name": name, "title": title_of(name)} for name in metrics],
        "models": [
            {
                "id": model.model_id,
                "type": model.model_type,
                "status": model.status,
                "time": model.created_at,
                "values": {name: metric_of(model, name) for name in metrics},
            }
            for model in found.models
            if model.created_at is not None
        ],
        "bands": [[band.model_id, band.start, band.end] for band in found.bands],
        "marks": [
            {
                "kind": mark.kind,
                "time": mark.time,
                "revision": mark.revision,
                "model": mark.model_id,
                "before": mark.previous_model_id,
                "forced": mark.forced,
                "failed": mark.failed,
            }
            for mark in found.marks
            if mark.time is not None
        ],
    }


def metric_of(model: Any, name: str) -> Any:
    """A retrain's metric: of its files, else of the index."""
    return model.metrics.get(name, getattr(model, name, None))


def grid_chart(grid: Grid) -> dict[str, Any]:
    """Parallel axes: parameters, then metrics. A text has the place of its value among the axis' own."""
    tried = [row for row in grid.rows if not row.error]
    columns: list[tuple[str, str, list[Any]]] = [
        ("parameter", name, [row.params.get(name) for row in tried]) for name in grid.parameters
    ]
    metrics = [name for name in _FIRST if name in grid.metrics]
    metrics += [name for name in grid.metrics if name not in _FIRST]
    columns += [("metric", name, [row.metrics.get(name) for row in tried]) for name in metrics]
    axes = [_axis(kind, name, values) for kind, name, values in columns]
    return {"axes": [axis for axis in axes if axis is not None], "ranks": [row.rank for row in tried]}


def _axis(kind: str, name: str, values: Sequence[Any]) -> dict[str, Any] | None:
    """An axis; None where all rows have one and the same value, which tells nothing."""
    known = [value for value in values if value is not None]
    distinct = list(dict.fromkeys(known))
    if len(distinct) < 2:
        return None
    if all(isinstance(value, int | float) for value in known) and known:
        low, high = min(known), max(known)
        places = [None if value is None else _place(value, low, high) for value in values]
        ticks = [[_place(value, low, high), anything(value, name)] for value in _ticks(distinct)]
    else:
        texts = sorted({str(value) for value in known})
        places = [
            None if value is None else _place(texts.index(str(value)), 0, len(texts) - 1) for value in values
        ]
        ticks = [[_place(place, 0, len(texts) - 1), text] for place, text in enumerate(texts)]
    return {
        "kind": kind,
        "name": name,
        "title": title_of(name),
        "places": places,
        "texts": [anything(value, name) for value in values],
        "ticks": ticks,
    }


def _ticks(distinct: list[Any]) -> list[Any]:
    ordered = sorted(distinct)
    return ordered if len(ordered) <= 4 else [ordered[0], ordered[-1]]


def _place(value: float, low: float, high: float) -> float:
    return 0.5 if high == low else round((value - low) / (high - low), 4)


def live_chart(engine: LiveEngine) -> dict[str, Any]:
    """The engine's last bars: probability, equity, positions, changes of model."""
    return {
        "times": [bar.bar_time for bar in engine.recent],
        "probability": _rounded([bar.probability for bar in engine.recent], 5),
        "equity": _rounded([bar.equity for bar in engine.recent], 2),
        "signals": [
            {"time": bar.bar_time, "signal": bar.signal, "probability": bar.probability}
            for bar in engine.recent
            if bar.signal
        ],
        "bands": [[band.start, band.end, band.side] for band in engine.bands],
        "changes": [[change.bar_time, change.before, change.after] for change in engine.model_changes],
        "entry": engine.proba_entry,
        "exit": engine.proba_exit,
        "start": engine.starting_equity,
    }


def union_of_metrics(*found: Mapping[str, Any]) -> list[str]:
    """The names that any of them has, in the order in which people read them; the Sharpe ratio brings its error."""
    first = ["cum_return", "buy_hold_return", "sharpe", "sortino", "max_drawdown", "hit_rate", "trades", "exposure",
             "turnover", "rank_ic", "sign_accuracy", "auc", "auc_all", "log_loss", "log_loss_all", "brier", "brier_all",
             "accuracy", "accuracy_all", "base_rate", "base_rate_all", "precision", "recall", "labelled_share",
             "probabilistic_sharpe"]  # fmt: skip
    known = {name for values in found for name in values} - {"sharpe_se"}
    return [name for name in first if name in known] + sorted(known.difference(first))


def _rounded(values: Sequence[float | None], places: int) -> list[float | None]:
    return [None if value is None else round(value, places) for value in values]
