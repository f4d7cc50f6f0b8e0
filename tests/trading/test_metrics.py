"""The account's metrics against sums done by hand and against an independent library."""

from __future__ import annotations

import empyrical
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from signalserve.trading.metrics import account_metrics, drawdowns, sharpe, sortino
from signalserve.trading.rules import TradingRules
from signalserve.trading.simulation import Simulation, simulate

OPEN = np.array([10.0, 10.0, 11.0, 12.0, 11.0, 10.0])
CLOSE = np.array([10.0, 11.0, 12.0, 11.0, 10.0, 10.5])
RULES = TradingRules(0.5, 0.5, 0.0, 0.0)


def test_metrics_equal_sums_done_by_hand() -> None:
    outcome = simulate(OPEN, CLOSE, np.array([1, 1, 0, 0, 0, 0.0]), RULES)
    metrics = account_metrics(outcome, CLOSE, bars_per_year=100.0)
    returns = np.array([0.0, 11 / 10 - 1, 12 / 11 - 1, 0.0, 0.0, 0.0])
    np.testing.assert_allclose(outcome.returns, returns, atol=1e-15)
    assert metrics["sharpe"] == pytest.approx(returns.mean() / returns.std(ddof=1) * 10.0)
    assert metrics["exposure"] == pytest.approx(2 / 6)
    assert metrics["turnover"] == pytest.approx(2 / 6)
    assert metrics["hit_rate"] == 1.0
    assert metrics["max_drawdown"] == 0.0
    assert metrics["sortino"] is None
    assert metrics["buy_hold_return"] == pytest.approx(0.05)


def test_drawdown_is_measured_from_the_earlier_high_the_start_included() -> None:
    outcome = simulate(OPEN, CLOSE, np.full(6, 1.0), RULES)
    assert account_metrics(outcome, CLOSE, bars_per_year=100.0)["max_drawdown"] == pytest.approx(1 - 10 / 12)
    falling = np.array([2.0, 1.0])
    half = simulate(np.array([2.0, 2.0]), falling, np.ones(2), RULES)
    assert account_metrics(half, falling, bars_per_year=1.0)["max_drawdown"] == 0.5


@given(st.integers(0, 2**32 - 1), st.integers(10, 400))
@example(2308197, 10)  # every return is a gain
def test_an_independent_library_gives_the_same_figures(seed: int, bars: int) -> None:
    random = np.random.default_rng(seed)
    returns = random.normal(0.0001, 0.01, bars)
    equity = np.cumprod(1.0 + returns)
    outcome = Simulation(returns, np.ones(bars), equity, (), ())
    metrics = account_metrics(outcome, equity, bars_per_year=252.0)
    assert metrics["cum_return"] == pytest.approx(empyrical.cum_returns_final(returns))
    assert metrics["sharpe"] == pytest.approx(empyrical.sharpe_ratio(returns, annualization=252))
    sortino = empyrical.sortino_ratio(returns, annualization=252)
    assert metrics["sortino"] == (pytest.approx(sortino) if np.isfinite(sortino) else None)
    assert metrics["max_drawdown"] == pytest.approx(-empyrical.max_drawdown(returns))


def test_drawdowns_are_shares_of_the_high_before() -> None:
    found = drawdowns(np.array([90.0, 120.0, 60.0]), 100.0)
    np.testing.assert_allclose(found, [0.1, 0.0, 0.5])


def test_a_ratio_without_variation_is_zero_or_none() -> None:
    assert sortino(np.zeros(50), 35040.0) is None
    assert sharpe(np.zeros(50), 35040.0) == 0.0
    assert sharpe(np.full(50, 0.01), 35040.0) == 0.0
    assert sharpe(np.array([0.01]), 35040.0) == 0.0
