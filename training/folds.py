"""The joined walk-forward predictions of a model's training, traded by the rules of now on the bars at hand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from signalserve.features.bars import Bars
from signalserve.judging import Folds, timing
from signalserve.registry import ModelMetadata
from signalserve.registry.artefact import PREDICTIONS_FILE
from signalserve.trading.rules import TradingRules
from signalserve.trading.simulation import simulate
from signalserve.training.metrics import return_moments, strategy_metrics
from signalserve.training.predictions import read_fold_predictions


def measure_folds(folder: Path, meta: ModelMetadata, bars: Bars, rules: TradingRules) -> Folds | None:
    """Measure the folds; None where the training kept none.

    They are a check of the recipe on bars that the final model may have been fitted on: its folds' models were not.
    """
    digest = meta.extra.get("predictions_sha256")
    if not isinstance(digest, str):
        return None
    try:
        probability = read_fold_predictions(folder, digest)
    except OSError as error:
        return Folds(missing=f"{PREDICTIONS_FILE} of its folder: {error.strerror or error}")
    except ValueError as error:
        return Folds(missing=" ".join(str(error).split()))
    index = pd.DatetimeIndex(bars.frame.index)
    at = index.get_indexer(pd.DatetimeIndex(probability.index))
    if not len(at) or (at < 0).any():
        first = probability.index[0].isoformat() if len(at) else "nowhere"
        return Folds(missing=f"{bars.path.name} lacks bars of it; it begins at {first}")
    frame = bars.frame.iloc[at]
    open_, close = frame["open"].to_numpy(), frame["close"].to_numpy()
    simulation = simulate(open_, close, probability.to_numpy(), rules)
    metrics = strategy_metrics(simulation, close, bars_per_year=bars.bars_per_year)
    trials, variance = trials_of(meta)
    return Folds(
        window_start=probability.index[0].isoformat(),
        window_end=probability.index[-1].isoformat(),
        bars=len(at),
        cum_return=float(metrics["cum_return"] or 0.0),
        sharpe=float(metrics["sharpe"] or 0.0),
        moments=return_moments(simulation.returns),
        timing=timing(simulation.position, open_, close).probability,
        trials=trials,
        trial_variance=variance,
    )


def trials_of(meta: ModelMetadata) -> tuple[int, float | None]:
    """How many parameter sets were tried for a model, and the variance of their per-bar Sharpe ratios."""
    trials = meta.extra.get("trials")
    if not isinstance(trials, Mapping):
        return 1, None
    count, variance = trials.get("count"), trials.get("per_bar_sharpe_variance")
    known = float(variance) if isinstance(variance, int | float) and math.isfinite(variance) else None
    return (count if isinstance(count, int) and count > 0 else 1), known
