"""The simulated strategy and its metrics, against sums done by hand and by another route."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.metrics import classification_metrics, sharpe, strategy_metrics
from training.simulation import simulate

OPEN = np.array([10.0, 10.0, 11.0, 12.0, 11.0, 10.0])
CLOSE = np.array([10.0, 11.0, 12.0, 11.0, 10.0, 10.5])


def test_a_signal_at_a_close_fills_at_the_next_open() -> None:
    outcome = simulate(
        OPEN,
        CLOSE,
        np.array([0.6, 0.5, 0.5, 0.4, 0.9, 0.9]),
        proba_entry=0.55,
        proba_exit=0.45,
        cost_bps=0.0,
    )
    # bought at the open of bar 1 for 10, held between the thresholds, sold at the open of bar 4 for 11;
    # bought again at the open of bar 5 for 10 and sold at the last close, 10.5
    assert outcome.position.tolist() == [0, 1, 1, 1, 0, 1]
    np.testing.assert_allclose(outcome.trade_returns, [0.1, 0.05])
    np.testing.assert_allclose(np.prod(1.0 + outcome.returns), 1.1 * 1.05)


def test_every_fill_pays_the_costs_the_last_sale_included() -> None:
    outcome = simulate(OPEN, CLOSE, np.full(6, 0.9), proba_entry=0.5, proba_exit=0.5, cost_bps=100.0)
    np.testing.assert_allclose(outcome.trade_returns, [10.5 / 10.0 * 0.99**2 - 1.0])
    np.testing.assert_allclose(np.prod(1.0 + outcome.returns), 10.5 / 10.0 * 0.99**2)


def test_the_last_probability_of_the_span_is_too_late_to_trade() -> None:
    late = np.array([0, 0, 0, 0, 0, 1.0])
    outcome = simulate(OPEN, CLOSE, late, proba_entry=0.5, proba_exit=0.5, cost_bps=10.0)
    assert not outcome.position.any()
    assert not outcome.returns.any()


@given(
    seed=st.integers(0, 2**32 - 1),
    bars=st.integers(2, 120),
    entry=st.floats(0.0, 1.0),
    exit_share=st.floats(0.0, 1.0),
    cost=st.floats(0.0, 50.0),
)
def test_the_bars_returns_compound_to_the_trades_returns(
    seed: int, bars: int, entry: float, exit_share: float, cost: float
) -> None:
    random = np.random.default_rng(seed)
    open_, close = random.uniform(5.0, 15.0, (2, bars))
    outcome = simulate(
        open_,
        close,
        random.random(bars),
        proba_entry=entry,
        proba_exit=entry * exit_share,
        cost_bps=cost,
    )
    by_trade = float(np.prod(1.0 + outcome.trade_returns))
    np.testing.assert_allclose(np.prod(1.0 + outcome.returns), by_trade, rtol=1e-9)
    metrics = strategy_metrics(outcome, close, bars_per_year=35040.0)
    assert metrics["cum_return"] == pytest.approx(by_trade - 1.0, rel=1e-9, abs=1e-12)
    assert metrics["trades"] == outcome.trade_returns.size
    assert 0.0 <= float(metrics["max_drawdown"] or 0.0) < 1.0


def test_strategy_metrics_equal_sums_done_by_hand() -> None:
    outcome = simulate(
        OPEN, CLOSE, np.array([1, 1, 0, 0, 0, 0.0]), proba_entry=0.5, proba_exit=0.5, cost_bps=0.0
    )
    metrics = strategy_metrics(outcome, CLOSE, bars_per_year=100.0)
    returns = np.array([0.0, 11 / 10 - 1, 12 / 11 - 1, 0.0, 0.0, 0.0])
    np.testing.assert_allclose(outcome.returns, returns, atol=1e-15)
    assert metrics["sharpe"] == pytest.approx(returns.mean() / returns.std(ddof=1) * 10.0)
    assert metrics["exposure"] == pytest.approx(2 / 6)
    assert metrics["turnover"] == pytest.approx(2 / 6)
    assert metrics["hit_rate"] == 1.0
    assert metrics["max_drawdown"] == 0.0
    assert metrics["buy_hold_return"] == pytest.approx(0.05)


def test_drawdown_is_measured_from_the_earlier_high_the_start_included() -> None:
    outcome = simulate(OPEN, CLOSE, np.full(6, 1.0), proba_entry=0.5, proba_exit=0.5, cost_bps=0.0)
    metrics = strategy_metrics(outcome, CLOSE, bars_per_year=100.0)
    assert metrics["max_drawdown"] == pytest.approx(1 - 10 / 12)
    falling = simulate(
        np.array([2.0, 2.0]), np.array([2.0, 1.0]), np.ones(2), proba_entry=0.5, proba_exit=0.5, cost_bps=0.0
    )
    assert strategy_metrics(falling, np.array([2.0, 1.0]), bars_per_year=1.0)["max_drawdown"] == 0.5


def test_a_sharpe_without_variation_is_zero() -> None:
    assert sharpe(np.zeros(50), 35040.0) == 0.0
    assert sharpe(np.full(50, 0.01), 35040.0) == 0.0
    assert sharpe(np.array([0.01]), 35040.0) == 0.0


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
