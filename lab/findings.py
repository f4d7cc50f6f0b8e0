"""What an evaluation measured, beyond its verdicts: how well the positions were timed, and what the folds gave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from signalserve.judging import Evidence, Folds, Measured
from signalserve.lab.plain import moment, text_of


@dataclass(frozen=True)
class Timed:
    """A model's positions beside their shifted copies: mean gains per bar, before costs; `low` to `high` hold 90 %."""

    model_id: str
    probability: float
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Walked:
    """The joined walk-forward predictions, traded; `trials` is how many the grid tried on them.

    `sharpe` and its standard error are annualised. `missing` says why there is nothing else here.
    """

    start: datetime | None
    end: datetime | None
    bars: int
    cum_return: float | None
    sharpe: float | None
    sharpe_se: float | None
    timing: float | None
    trials: int
    missing: str = ""


@dataclass(frozen=True)
class Findings:
    """Of the bars from `start` to `end`. `timings`: the challenger's, and the champion's that it was compared with."""

    start: datetime | None
    end: datetime | None
    bars: int
    timings: tuple[Timed, ...]
    walk_forward: Walked | None


def findings_of(evidence: Mapping[str, Any] | None) -> Findings | None:
    """What a record of the log says; None where there is none, or one that nobody can read."""
    if evidence is None:
        return None
    try:
        found = Evidence.from_dict(evidence)
    except (KeyError, TypeError, ValueError):  # a verdict says what is wrong with it
        return None
    return Findings(
        start=moment(found.window_start),
        end=moment(found.window_end),
        bars=found.bars,
        timings=tuple(timed for model in found.models if (timed := _timed(model)) is not None),
        walk_forward=None if found.folds is None else _walked(found.folds),
    )


def _timed(model: Measured) -> Timed | None:
    """None for a record of before there was such a test."""
    if model.timing is None or model.timing_mean is None:
        return None
    if model.timing_low is None or model.timing_high is None:
        return None
    return Timed(
        text_of(model.model_id), model.timing, model.timing_mean, model.timing_low, model.timing_high
    )


def _walked(folds: Folds) -> Walked:
    if folds.missing:
        return Walked(None, None, 0, None, None, None, None, folds.trials, text_of(folds.missing))
    return Walked(
        start=moment(folds.window_start),
        end=moment(folds.window_end),
        bars=folds.bars,
        cum_return=folds.cum_return,
        sharpe=folds.sharpe,
        sharpe_se=None if folds.moments is None else folds.moments.annualised_error(folds.sharpe),
        timing=folds.timing,
        trials=folds.trials,
    )
