"""Metrics of the test span. An undefined one (no positives, a single class) is None, never NaN.

Classification, on bars that have a class; y is the class, p the probability of class 1:

- accuracy: share of (p >= 0.5) == y; precision, recall: of (p >= 0.5)
- auc: area under the ROC curve; log_loss: mean of -ln(probability of the true class), natural logarithm
- brier: mean of (p - y)^2; base_rate: mean of y

**Which bars have a class is chosen by their future**: those that moved beyond the label's thresholds. Nobody knows at a
bar's close whether it is one of them, so these figures flatter a model in live trading. Hence beside them

- auc_all, accuracy_all, log_loss_all, brier_all, base_rate_all: the same over every bar whose future is known, where
  y is 1 if the return that the label speaks of (`labels.Labels.forward_return`) is above zero
- labelled_share: how many of those bars have a class

Strategy, on **all** test bars: the account's (`trading.metrics`), and

- sharpe_se: the standard error of `sharpe`, annualised like it (`judging.sharpe`)
- probabilistic_sharpe: P(true Sharpe ratio > 0), see `probabilistic_sharpe`
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kurtosis, skew
from sklearn.metrics import log_loss, precision_score, recall_score, roc_auc_score

from signalserve.judging.sharpe import ReturnMoments
from signalserve.trading.metrics import Metrics, account_metrics
from signalserve.trading.simulation import Simulation

Array = NDArray[np.float64]
_OF_ALL_BARS = ("accuracy", "auc", "log_loss", "brier", "base_rate")


def score_metrics(classes: Array, forward_return: Array, probability: Array) -> Metrics:
    """Metrics of the scores of n bars, by class and, as `<name>_all`, by the sign of the return that came.

    `classes` is 0.0, 1.0 or NaN, `forward_return` a return or NaN, `probability` NaN where there is no score; all
    float64 [n].
    """
    scored = np.isfinite(probability)
    known = scored & np.isfinite(classes)
    come = scored & np.isfinite(forward_return)
    rose = (forward_return[come] > 0.0).astype(np.float64)
    every = classification_metrics(rose, probability[come])
    return {
        **classification_metrics(classes[known], probability[known]),
        **{f"{name}_all": every[name] for name in _OF_ALL_BARS},
        "labelled_share": float(np.isfinite(classes[come]).mean()) if come.any() else None,
    }


def classification_metrics(classes: Array, probability: Array) -> Metrics:
    """Metrics of n bars; `classes` is 0.0 or 1.0, both arrays are float64 [n]."""
    names = ("accuracy", "auc", "log_loss", "brier", "precision", "recall", "base_rate")
    if classes.size == 0:
        return dict.fromkeys(names)
    truth = classes.astype(np.int64)
    guess = (probability >= 0.5).astype(np.int64)
    both = 0 < truth.sum() < truth.size
    return {
        "accuracy": float((truth == guess).mean()),
        "auc": float(roc_auc_score(truth, probability)) if both else None,
        "log_loss": float(log_loss(truth, probability, labels=[0, 1])),
        "brier": float(((probability - classes) ** 2).mean()),
        "precision": float(precision_score(truth, guess)) if guess.any() else None,
        "recall": float(recall_score(truth, guess)) if truth.any() else None,
        "base_rate": float(truth.mean()),
    }


def strategy_metrics(simulation: Simulation, close: Array, *, bars_per_year: float) -> Metrics:
    """The account's metrics over n >= 2 bars with these closes, and how sure its Sharpe ratio is."""
    moments = return_moments(simulation.returns)
    error = None if moments is None else moments.sharpe_se
    return {
        **account_metrics(simulation, close, bars_per_year=bars_per_year),
        "sharpe_se": None if error is None else error * math.sqrt(bars_per_year),
        "probabilistic_sharpe": None if moments is None else moments.probabilistic_sharpe(),
    }


def return_moments(returns: Array) -> ReturnMoments | None:
    """The moments of per-bar returns, float64 [n]; None where they don't vary."""
    if returns.size < 3:
        return None
    spread = float(returns.std(ddof=1))
    if spread <= 1e-15:
        return None
    ratio = float(returns.mean()) / spread
    return ReturnMoments(returns.size, ratio, float(skew(returns)), float(kurtosis(returns, fisher=False)))


def probabilistic_sharpe(returns: Array, benchmark: float = 0.0) -> float | None:
    """P(true Sharpe ratio > benchmark), both per bar (`judging.sharpe`); None where the returns don't vary."""
    moments = return_moments(returns)
    return None if moments is None else moments.probabilistic_sharpe(benchmark)
