"""Walk-forward evaluation: how the recipe does on bars that come after those it was fitted on, fold by fold.

Each fold (`training.split`) fits a new model on its window and scores its test span; the folds' answers, joined,
are one out-of-sample series over the end of the training part. A fold whose window has too few bars of a class
gives no answer (NaN: no signal), and says so.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from signalserve.trading.simulation import simulate
from signalserve.training.dataset import MIN_ROWS_A_CLASS, Dataset
from signalserve.training.errors import TrainingError
from signalserve.training.metrics import score_metrics, strategy_metrics
from signalserve.training.models import fit_model
from signalserve.training.progress import Report, quiet
from signalserve.training.request import TrainRequest
from signalserve.training.split import walk_forward_folds

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Fold:
    """A fold: positions of its bars, how many labelled rows its fit took, and how it did on its test span.

    `auc` is None where the test span has a single class, or the fold was `skipped` for the reason given.
    """

    number: int
    train: range
    test: range
    rows: int
    auc: float | None = None
    skipped: str = ""


@dataclass(frozen=True)
class WalkForward:
    """The folds, and what they say together.

    `probability` is float64 [n] over all bars of the dataset, NaN where no fold answered. `metrics` are those of
    the joined series, None-valued where no fold answered. `notes` are the fits' warnings.
    """

    folds: tuple[Fold, ...]
    probability: Array
    metrics: Mapping[str, Any]
    notes: tuple[str, ...]

    @property
    def span(self) -> range:
        """The bars that the folds were tested on."""
        return range(self.folds[0].test.start, self.folds[-1].test.stop)

    def per_bar_sharpe(self, _timeframe: str = "") -> float | None:
        """The joined series' Sharpe ratio, not annualised."""
        sharpe = self.metrics["sharpe"]
        return None if sharpe is None else float(sharpe) / math.sqrt(float(self.metrics["bars_per_year"]))


def walk_forward(dataset: Dataset, request: TrainRequest, *, report: Report = quiet) -> WalkForward:
    """Fit and test every fold of the training part. The final test span is not looked at.

    Raises:
        TrainingError: there are too few bars for the folds.
    """
    horizon = request.label.horizon_bars
    spans = walk_forward_folds(dataset.split.train, request.walk_forward, horizon=horizon)
    probability = np.full(len(dataset.matrix), np.nan)
    folds: list[Fold] = []
    notes: list[str] = []
    step = f"walking forward: {len(spans)} folds of {request.model_type}"
    # a fit takes time by its rows
    costs = [len(train) for train, _ in spans]
    for number, (train, test) in enumerate(spans, 1):
        auc = _auc(dataset, probability, range(spans[0][1].start, test.start))
        note = f"fold {number}/{len(spans)}" + ("" if auc is None else f", AUC so far {auc:.3f}")
        report(step, done=sum(costs[: number - 1]), total=sum(costs), note=note)
        rows = dataset.fit_rows(train, test)
        counts = dataset.class_counts(rows)
        if min(counts) < MIN_ROWS_A_CLASS:
            reason = (
                f"{counts[1]} bars of class 1 and {counts[0]} of class 0, {MIN_ROWS_A_CLASS} of each needed"
            )
            folds.append(Fold(number, train, test, len(rows), skipped=reason))
            continue
        model, texts = fit(dataset, rows, request)
        probability[test.start : test.stop] = score(model, dataset, test)
        folds.append(Fold(number, train, test, len(rows), _auc(dataset, probability, test)))
        notes += texts
    metrics = measure(dataset, range(spans[0][1].start, spans[-1][1].stop), probability, request)
    found = metrics["auc"]
    done = "no fold could be fitted" if found is None else f"AUC {found:.3f}"
    report(step, done=sum(costs), total=sum(costs), note=done)
    return WalkForward(tuple(folds), probability, metrics, tuple(dict.fromkeys(notes)))


def fit(dataset: Dataset, rows: NDArray[np.intp], request: TrainRequest) -> tuple[Any, tuple[str, ...]]:
    """A fitted model, and what its library warned of."""
    model = request.model()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit_model(model, dataset.matrix[rows], dataset.labels.classes[rows], balanced=request.balanced)
    texts = (f"{item.category.__name__}: {' '.join(str(item.message).split())}" for item in caught)
    return model, tuple(dict.fromkeys(texts))


def score(model: Any, dataset: Dataset, span: range) -> Array:
    """P(class 1) of the bars of a span."""
    answer = model.predict_proba(dataset.matrix[span.start : span.stop])[:, 1]
    return np.asarray(answer, dtype=np.float64)


def measure(dataset: Dataset, span: range, probability: Array, request: TrainRequest) -> dict[str, Any]:
    """Metrics of a span of bars, from probabilities of all bars, float64 [n]; NaN is no signal.

    Those of the scores are over the bars with a probability (`training.metrics` says which), those of the strategy
    over all.
    """
    labels = dataset.labels
    frame = dataset.bars.frame.iloc[span.start : span.stop]
    close = frame["close"].to_numpy()
    seen = probability[span.start : span.stop]
    simulation = simulate(frame["open"].to_numpy(), close, seen, request.rules)
    strategy = strategy_metrics(simulation, close, bars_per_year=dataset.bars.bars_per_year)
    if not np.isfinite(seen).any():
        strategy = dict.fromkeys(strategy)
    classes, forward = (values[span.start : span.stop] for values in (labels.classes, labels.forward_return))
    return {**score_metrics(classes, forward, seen), **strategy}


def answered(result: WalkForward) -> WalkForward:
    """The same, if any fold answered.

    Raises:
        TrainingError: none did; it gives the first fold's reason.
    """
    if np.isfinite(result.probability).any():
        return result
    raise TrainingError(f"no walk-forward fold could be fitted: fold 1 has {result.folds[0].skipped}")


def _auc(dataset: Dataset, probability: Array, span: range) -> float | None:
    rows = dataset.labelled(span)
    rows = rows[np.isfinite(probability[rows])]
    if 0 in dataset.class_counts(rows):
        return None
    return float(roc_auc_score(dataset.labels.classes[rows], probability[rows]))
