"""What an evaluation found: the numbers that the promote gate reads, as the event log keeps them.

1. Challenger and champion are measured on the same bars, all of them after both models' training spans.
2. The record names both models by id and digest: evidence on other files, or against another champion, is
   evidence on something else.
3. `kind` is `artefact` where these very models were measured, `recipe` where the challenger is a refit, on all bars, of
   the model that was measured: `recipe_of` names that one, and its training span is the challenger's here.
4. It holds what was measured and how, and no verdict: what luck explains depends on how many looks at these
   bars the log knows of, and the gate counts them under the registry's lock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from datetime import datetime, timedelta
from typing import Any, Self

from signalserve.common.moments import parse_moment
from signalserve.judging.sharpe import ReturnMoments

_COUNTS = frozenset({"trades", "horizon_bars", "bars", "resamples", "seed", "trials", "overlap", "differ"})
_NUMBERS = frozenset({"cum_return", "sharpe", "max_drawdown", "bar_minutes"})
_OPTIONAL = frozenset(
    {
        "auc",
        "rank_ic",
        "timing",
        "timing_mean",
        "timing_low",
        "timing_high",
        "probability_better",
        "mean_difference",
        "block_bars",
        "trial_variance",
    }
)
_MOMENTS = ("n", "sharpe", "skewness", "kurtosis")


class _Kept:
    """A part of a record, as the log keeps it."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """From the log.

        Raises:
            KeyError, TypeError, ValueError: it is not what `asdict` gives.
        """
        return cls(**_known(cls, values))


@dataclass(frozen=True)
class Measured(_Kept):
    """One model on the window: returns are net of costs.

    `train_end` is the last bar that its training has seen, `horizon_bars` how far its labels read ahead.
    `sharpe` is annualised; `max_drawdown` a share of the high before; `moments` those of the per-bar returns,
    None where they don't vary. `auc` is a classifier's, `rank_ic` a regressor's: the rank correlation of its values
    with the returns that came. `timing` is the probability that its positions beat their shifted copies by skill
    (`judging.timing`), `timing_mean` its gain per bar before costs, `timing_low` and `timing_high` bound 90 % of the
    copies'.
    """

    model_id: str
    digest: str
    train_end: str
    cum_return: float
    sharpe: float
    max_drawdown: float
    trades: int
    horizon_bars: int = 0
    moments: ReturnMoments | None = None
    auc: float | None = None
    rank_ic: float | None = None
    timing: float | None = None
    timing_mean: float | None = None
    timing_low: float | None = None
    timing_high: float | None = None


@dataclass(frozen=True)
class Folds(_Kept):
    """The joined walk-forward predictions of the challenger's training: its recipe, on bars before the window.

    `timing` and `moments` are as in `Measured`, by the rules of now. `trials` is what its grid tried on these very
    folds, `trial_variance` that of their per-bar Sharpe ratios. `missing` says why they could not be measured.
    """

    window_start: str = ""
    window_end: str = ""
    bars: int = 0
    cum_return: float = 0.0
    sharpe: float = 0.0
    moments: ReturnMoments | None = None
    timing: float | None = None
    trials: int = 1
    trial_variance: float | None = None
    missing: str = ""


@dataclass(frozen=True)
class TrainedOn(_Kept):
    """Weeks of the challenger's training span that the bar file has, too, and those of them whose bars are others.

    `first` is the first of the latter, by its Monday.
    """

    overlap: int
    differ: int = 0
    first: str = ""


@dataclass(frozen=True)
class RecipeOf(_Kept):
    """The model that was measured in the challenger's stead, by its id and digest."""

    model_id: str
    digest: str


@dataclass(frozen=True)
class Evidence:
    """An evaluation of `challenger`, against `champion` where the key had one.

    `window_start` and `window_end` are open times of bars, `bar_minutes` apart. `probability_better` is P(challenger
    better) by the stationary block bootstrap of the difference in per-bar returns; `block_bars` is the mean block
    that it took. `rules` are those of the simulation, costs included. `measured_by`: `trainer`, the run that trained
    it; `evaluate`, on the configured bars; `brought`, on others, or elsewhere. `folds` and `trained_on` are None
    where its training kept nothing to measure them by. `recipe_of`: see the module.
    """

    challenger: Measured
    champion: Measured | None
    evaluated_at: str
    window_start: str
    window_end: str
    bars: int
    bar_minutes: float = 0.0
    probability_better: float | None = None
    mean_difference: float | None = None
    block_bars: float | None = None
    resamples: int = 0
    seed: int = 0
    kind: str = "artefact"
    measured_by: str = "brought"
    folds: Folds | None = None
    trained_on: TrainedOn | None = None
    recipe_of: RecipeOf | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    rules: Mapping[str, Any] = field(default_factory=dict)

    @property
    def evaluated(self) -> datetime:
        """When it was made."""
        return parse_moment(self.evaluated_at)

    @property
    def window(self) -> tuple[datetime, datetime]:
        """Open times of the first and the last bar."""
        return parse_moment(self.window_start), parse_moment(self.window_end)

    @property
    def models(self) -> tuple[Measured, ...]:
        """Those that were measured, the challenger first."""
        return (self.challenger,) if self.champion is None else (self.challenger, self.champion)

    @property
    def measured_ids(self) -> tuple[str, ...]:
        """Those whose files were measured: of a refit the one that it carries the evidence of."""
        first = self.recipe_of.model_id if self.recipe_of is not None else self.challenger.model_id
        return (first, *(model.model_id for model in self.models[1:]))

    def carried_to(self, model_id: str, digest: str) -> Evidence:
        """The same as evidence on the challenger's refit: of kind `recipe`."""
        measured = self.challenger
        return replace(
            self,
            kind="recipe",
            challenger=replace(measured, model_id=model_id, digest=digest),
            recipe_of=RecipeOf(measured.model_id, measured.digest),
        )

    def clear_of(self, model: Measured) -> datetime:
        """The time up to which no bar of the window may open: the model's training has reached that far."""
        return parse_moment(model.train_end) + timedelta(minutes=model.horizon_bars * self.bar_minutes)

    def to_dict(self) -> dict[str, Any]:
        """For the log."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Evidence:
        """From the log.

        Raises:
            KeyError, TypeError, ValueError: it is not what `to_dict` wrote.
        """
        known = _known(cls, values)
        known["challenger"] = Measured.from_dict(values["challenger"])
        champion = values["champion"]
        known["champion"] = Measured.from_dict(champion) if champion is not None else None
        for name, kind in (("folds", Folds), ("trained_on", TrainedOn), ("recipe_of", RecipeOf)):
            if known.get(name) is not None:
                known[name] = kind.from_dict(known[name])
        evidence = cls(**known)
        for model in evidence.models:
            evidence.clear_of(model)
        first, last = evidence.window
        if first > last or evidence.evaluated < first:
            raise ValueError("its window or its time are no evaluation's")
        return evidence


def _known(kind: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a record; one that an earlier version did not write may be missing."""
    known = {
        item.name: values[item.name]
        for item in fields(kind)
        if item.name in values or (item.default is MISSING and item.default_factory is MISSING)
    }
    _check(known)
    if (moments := known.get("moments")) is not None:
        if not all(_is_number(moments[name]) for name in _MOMENTS):
            raise ValueError("moments is not made of numbers")
        known["moments"] = ReturnMoments(**{name: moments[name] for name in _MOMENTS})
    return known


def _check(values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if name in _COUNTS and not (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
            raise ValueError(f"{name} is {value!r}, no count")
        if name in _NUMBERS and not _is_number(value):
            raise ValueError(f"{name} is {value!r}, no number")
        if name in _OPTIONAL and value is not None and not _is_number(value):
            raise ValueError(f"{name} is {value!r}, no number")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
