"""Metrics against sums done by hand, against published figures and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kurtosis, skew

from signalserve.judging.sharpe import ReturnMoments, expected_max_sharpe, luck
from signalserve.trading.metrics import account_metrics
from signalserve.trading.plausible import suspicion
from signalserve.trading.rules import TradingRules
from signalserve.trading.simulation import simulate
from signalserve.training.metrics import (
    classification_metrics,
    probabilistic_sharpe,
    return_moments,
    score_metrics,
    strategy_metrics,
)


def test_the_probabilistic_sharpe_ratio_is_that_of_the_paper() -> None:
    # Bailey & Lopez de Prado (2012), section 3: 24 monthly returns with SR 0.458 (annualised 1.59), skewness
    # -2.448 and kurtosis 10.164 give P(SR > 0) of about 0.913
    ratio, skewness, peakedness = 0.458, -2.448, 10.164
    expected = 0.458 * np.sqrt(23) / np.sqrt(1 - skewness * ratio + (peakedness - 1) / 4 * ratio**2)
    assert expected == pytest.approx(1.36, abs=0.01)
    returns = sample_with(ratio, skewness, peakedness)
    assert probabilistic_sharpe(returns) == pytest.approx(0.913, abs=0.01)


def sample_with(ratio: float, skewness: float, peakedness: float) -> np.ndarray:
    """24 numbers with these moments, found by a search from a fixed start."""
    from scipy.optimize import minimize

    def miss(values: np.ndarray) -> float:
        spread = values.std(ddof=1)
        return float(
            100 * (values.mean() / spread - ratio) ** 2
            + (skew(values) - skewness) ** 2
            + (kurtosis(values, fisher=False) - peakedness) ** 2
        )

    start = np.random.default_rng(0).normal(0.5, 1.0, 24)
    start[0] = -5.0
    found = minimize(miss, start, method="L-BFGS-B", options={"maxiter": 2000})
    assert found.fun < 1e-4
    return np.asarray(found.x)


def test_the_expected_best_of_many_without_skill_is_what_a_simulation_shows() -> None:
    random = np.random.default_rng(0)
    for trials in (10, 100, 1000):
        best = random.normal(0.0, 0.5, (4_000, trials)).max(axis=1).mean()
        assert expected_max_sharpe(trials, 0.25) == pytest.approx(best, rel=0.04)
    assert expected_max_sharpe(1, 0.25) == 0.0


def test_more_looks_deflate_more_and_one_not_at_all() -> None:
    returns = np.random.default_rng(1).normal(0.0005, 0.01, 1000)
    assert luck(1000, 1) == 0.0
    found = [probabilistic_sharpe(returns, luck(1000, looks)) for looks in (1, 2, 10, 100)]
    assert found == sorted(found, reverse=True)
    assert len(set(found)) == 4


def test_moments_are_those_that_scipy_gives_and_none_without_variation() -> None:
    returns = np.random.default_rng(3).standard_t(4, 500) * 0.01
    found = return_moments(returns)
    assert found == ReturnMoments(
        500, float(returns.mean() / returns.std(ddof=1)), float(skew(returns)), float(kurtosis(returns) + 3.0)
    )
    assert return_moments(np.zeros(100)) is None


def test_a_ratio_without_variation_is_none() -> None:
    assert probabilistic_sharpe(np.full(50, 0.01)) is None


def test_a_strategys_metrics_are_the_accounts_and_how_sure_its_sharpe_ratio_is() -> None:
    random = np.random.default_rng(7)
    open_, close = random.uniform(8.0, 12.0, (2, 100))
    outcome = simulate(open_, close, random.random(100), TradingRules(0.6, 0.4, 5.0, 2.0))
    metrics = strategy_metrics(outcome, close, bars_per_year=100.0)
    moments = return_moments(outcome.returns)
    assert moments is not None
    assert metrics == {
        **account_metrics(outcome, close, bars_per_year=100.0),
        "sharpe_se": pytest.approx(10.0 * float(moments.sharpe_se or 0.0)),
        "probabilistic_sharpe": probabilistic_sharpe(outcome.returns),
    }
    assert moments.annualised_error(float(metrics["sharpe"] or 0.0)) == pytest.approx(metrics["sharpe_se"])


def test_the_standard_error_of_a_sharpe_ratio_is_how_much_it_varies_from_sample_to_sample() -> None:
    random = np.random.default_rng(5)
    returns = 0.02 + 0.1 * (random.exponential(1.0, (3_000, 500)) - 1.0)  # skewed, with fat tails
    ratios = returns.mean(axis=1) / returns.std(axis=1, ddof=1)
    errors = [float(moments.sharpe_se or 0.0) for row in returns[:200] if (moments := return_moments(row))]
    assert np.mean(errors) == pytest.approx(ratios.std(), rel=0.05)
    assert ReturnMoments(1, 0.1, 0.0, 3.0).sharpe_se is None
    assert ReturnMoments(100, 0.0, 0.0, 3.0).annualised_error(0.0) is None


def test_all_bars_count_where_the_future_is_known_whether_they_moved_enough_or_not() -> None:
    nan = np.nan
    metrics = score_metrics(
        np.array([1.0, nan, 0.0, nan, nan, 1.0]),
        np.array([0.02, 0.001, -0.02, -0.001, nan, 0.02]),
        np.array([0.9, 0.2, 0.1, 0.6, 0.7, nan]),
    )
    assert (metrics["accuracy"], metrics["auc"], metrics["base_rate"]) == (1.0, 1.0, 0.5)
    assert (metrics["accuracy_all"], metrics["auc_all"], metrics["base_rate_all"]) == (0.5, 0.75, 0.5)
    assert metrics["brier_all"] == pytest.approx((0.1**2 + 0.8**2 + 0.1**2 + 0.6**2) / 4)
    assert metrics["labelled_share"] == 0.5
    unknown = score_metrics(np.full(3, nan), np.full(3, nan), np.full(3, 0.5))
    assert set(unknown.values()) == {None}


@pytest.mark.parametrize(
    ("name", "value", "doubted"),
    [
        ("auc", 0.76, True),
        ("auc_all", 0.24, True),
        ("auc", 0.74, False),
        ("sharpe", 10.5, True),
        ("sharpe", -10.5, True),
        ("sharpe", 9.5, False),
        ("sharpe", None, False),
        ("sortino", 40.0, False),
    ],
)
def test_what_is_too_good_to_be_true_is_said_to_be_so(name: str, value: float | None, doubted: bool) -> None:
    assert suspicion(name, value) == ("implausible: look for leakage" if doubted else "")


def test_classification_metrics_equal_sums_done_by_hand() -> None:
    metrics = classification_metrics(np.array([1.0, 0.0, 1.0, 0.0]), np.array([0.9, 0.6, 0.4, 0.1]))
    assert metrics["accuracy"] == 0.5
    assert metrics["precision"] == 0.5
    assert metrics["recall"] == 0.5
    assert metrics["auc"] == 0.75
    assert metrics["brier"] == pytest.approx((0.01 + 0.36 + 0.36 + 0.01) / 4)
    assert metrics["log_loss"] == pytest.approx(-(2 * np.log(0.9) + 2 * np.log(0.4)) / 4)
    assert metrics["base_rate"] == 0.5


def test_what_is_undefined_is_none_and_no_nan() -> None:
    one_class = classification_metrics(np.zeros(3), np.array([0.1, 0.2, 0.3]))
    assert one_class["auc"] is one_class["precision"] is one_class["recall"] is None
    assert one_class["accuracy"] == 1.0
    assert set(classification_metrics(np.empty(0), np.empty(0)).values()) == {None}
