"""Metrics of the test span. An undefined one (no positives, a single class) is None, never NaN.

Classification, on test bars that have a class; y is the class, p the probability of class 1:

- accuracy: share of (p >= 0.5) == y; precision, recall: of (p >= 0.5)
- auc: area under the ROC curve; log_loss: mean of -ln(probability of the true class), natural logarithm
- brier: mean of (p - y)^2; base_rate: mean of y

Strategy, on **all** test bars (`training.simulation`); r are its per-bar returns net of costs:

- cum_return: prod(1 + r) - 1
- sharpe: mean(r) / std(r, ddof=1) * sqrt(bars per year), bars of 365 days; 0 where nothing was traded
- sortino: mean(r) / sqrt(mean(min(r, 0)^2)) * sqrt(bars per year); None where no bar lost
- probabilistic_sharpe: P(true Sharpe ratio > 0), see `probabilistic_sharpe`
- max_drawdown: the largest fall of the equity from an earlier high, as a share of that high (0 or positive)
- trades: round trips; hit_rate: share of them with a net gain; exposure: share of bars held
- turnover: fills a bar; buy_hold_return: last close / first close - 1, without costs
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kurtosis, skew
from sklearn.metrics import log_loss, precision_score, recall_score, roc_auc_score

from signalserve.judging.sharpe import ReturnMoments
from signalserve.training.simulation import Simulation

Array = NDArray[np.float64]
Metrics = dict[str, float | int | None]


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
    """Metrics of a simulation over n >= 2 bars with these closes."""
    returns = simulation.returns
    equity = np.cumprod(1.0 + returns)
    high = np.maximum.accumulate(np.concatenate(([1.0], equity)))[1:]
    gains = np.array([trade.net_return for trade in simulation.trades])
    return {
        "cum_return": float(equity[-1] - 1.0),
        "sharpe": sharpe(returns, bars_per_year),
        "sortino": sortino(returns, bars_per_year),
        "probabilistic_sharpe": probabilistic_sharpe(returns),
        "max_drawdown": float((1.0 - equity / high).max()),
        "trades": int(gains.size),
        "hit_rate": float((gains > 0.0).mean()) if gains.size else None,
        "exposure": float(np.abs(simulation.position).mean()),
        "turnover": float(simulation.fills / returns.size),
        "buy_hold_return": float(close[-1] / close[0] - 1.0),
    }


def sharpe(returns: Array, bars_per_year: float) -> float:
    """Annualised Sharpe ratio of per-bar returns, float64 [n]; 0 where they don't vary."""
    if returns.size < 2:
        return 0.0
    spread = float(returns.std(ddof=1))
    if spread <= 1e-15:
        return 0.0
    return float(returns.mean()) / spread * math.sqrt(bars_per_year)


def sortino(returns: Array, bars_per_year: float) -> float | None:
    """Annualised Sortino ratio against a target of 0 (Sortino & van der Meer, 1991)."""
    downside = math.sqrt(float((np.minimum(returns, 0.0) ** 2).mean())) if returns.size else 0.0
    if downside <= 1e-15:
        return None
    return float(returns.mean()) / downside * math.sqrt(bars_per_year)


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
