"""The simulated account against sums done by hand, and what must hold whatever the prices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalserve.trading.metrics import account_metrics
from signalserve.trading.rules import TradingRules
from signalserve.trading.simulation import Simulation, simulate

OPEN = np.array([10.0, 10.0, 11.0, 12.0, 11.0, 10.0])
CLOSE = np.array([10.0, 11.0, 12.0, 11.0, 10.0, 10.5])
FREE = TradingRules(0.55, 0.45, fee_bps=0.0, slippage_bps=0.0)


def net_returns(outcome: Simulation) -> list[float]:
    return [trade.net_return for trade in outcome.trades]


def test_a_signal_at_a_close_fills_at_the_next_open() -> None:
    outcome = simulate(OPEN, CLOSE, np.array([0.6, 0.5, 0.5, 0.4, 0.9, 0.9]), FREE)
    # bought at the open of bar 1 for 10, held between the thresholds, sold at the open of bar 4 for 11;
    # bought again at the open of bar 5 for 10 and sold at the last close, 10.5
    assert outcome.position.tolist() == [0, 1, 1, 1, 0, 1]
    assert net_returns(outcome) == pytest.approx([0.1, 0.05])
    assert [(trade.entry_bar, trade.exit_bar, trade.open_at_end) for trade in outcome.trades] == [
        (1, 4, False),
        (5, 5, True),
    ]
    assert np.prod(1.0 + outcome.returns) == pytest.approx(1.1 * 1.05)
    assert len(outcome.fills) == 4


def test_a_short_earns_what_the_price_loses_and_a_flip_closes_and_opens_at_one_open() -> None:
    rules = TradingRules(0.6, 0.5, 0.0, 0.0, allow_short=True)
    outcome = simulate(OPEN, CLOSE, np.array([0.3, 0.5, 0.9, 0.9, 0.3, 0.3]), rules, starting_equity=100.0)
    # short 10 units from the open of bar 1 to that of bar 2 (p = 0.5 leaves it), long from bar 3 to 5, short again
    assert outcome.position.tolist() == [0, -1, 0, 1, 1, -1]
    first, second, third = outcome.trades
    assert (first.side, first.quantity, first.pnl) == ("short", 10.0, -10.0)
    assert (second.side, second.entry_price, second.exit_price) == ("long", 12.0, 10.0)
    assert (third.entry_bar, third.exit_bar, third.open_at_end) == (5, 5, True)
    assert outcome.equity[-1] == pytest.approx(90.0 * 10 / 12 * (1 - 0.05))


def test_every_fill_pays_slippage_and_a_fee_on_its_value_the_last_sale_included() -> None:
    rules = TradingRules(0.5, 0.5, fee_bps=100.0, slippage_bps=200.0)
    outcome = simulate(OPEN, CLOSE, np.full(6, 0.9), rules, starting_equity=1000.0)
    (trade,) = outcome.trades
    assert (trade.entry_price, trade.exit_price) == (pytest.approx(10.2), pytest.approx(10.29))
    assert trade.quantity == pytest.approx(1000.0 / (10.2 * 1.01))
    assert trade.fees == pytest.approx(trade.quantity * (10.2 + 10.29) * 0.01)
    assert outcome.equity[-1] == pytest.approx(trade.quantity * 10.29 * 0.99)
    assert trade.pnl == pytest.approx(outcome.equity[-1] - 1000.0)


def test_the_last_probability_of_the_span_is_too_late_to_trade() -> None:
    outcome = simulate(OPEN, CLOSE, np.array([0, 0, 0, 0, 0, 1.0]), FREE)
    assert not outcome.position.any()
    assert not outcome.returns.any()


def test_a_bar_without_a_probability_and_the_warm_up_give_no_signal() -> None:
    nan = float("nan")
    held = simulate(OPEN, CLOSE, np.array([0.9, nan, nan, nan, nan, nan]), FREE)
    assert held.position.tolist() == [0, 1, 1, 1, 1, 1]
    late = simulate(OPEN, CLOSE, np.full(6, 0.9), TradingRules(0.55, 0.45, 0.0, 0.0, warmup_bars=3))
    assert late.position.tolist() == [0, 0, 0, 0, 1, 1]


def test_the_warm_up_counts_from_the_first_bar_that_has_a_score_whether_or_not_the_next_ones_have() -> None:
    nan = float("nan")
    rules = TradingRules(0.55, 0.45, 0.0, 0.0, warmup_bars=2)
    outcome = simulate(OPEN, CLOSE, np.array([nan, 0.9, nan, 0.9, 0.9, 0.9]), rules)
    assert outcome.position.tolist() == [0, 0, 0, 0, 1, 1]


def test_a_score_on_two_equal_thresholds_is_bought_and_held_and_its_mirror_is_sold_and_held() -> None:
    rules = TradingRules(0.6, 0.6, 0.0, 0.0, allow_short=True)
    long = simulate(OPEN, CLOSE, np.full(6, 0.6), rules)
    assert long.position.tolist() == [0, 1, 1, 1, 1, 1]
    short = simulate(OPEN, CLOSE, np.full(6, 1.0 - 0.6), rules)
    assert short.position.tolist() == [0, -1, -1, -1, -1, -1]


def test_a_short_that_loses_everything_ends_there() -> None:
    prices = np.array([10.0, 10.0, 25.0, 5.0, 5.0])
    outcome = simulate(prices, prices, np.zeros(5), TradingRules(0.6, 0.4, 0.0, 0.0, allow_short=True))
    assert outcome.equity.tolist() == [1.0, 1.0, 0.0, 0.0, 0.0]
    assert outcome.position.tolist() == [0, -1, -1, 0, 0]
    assert [trade.net_return for trade in outcome.trades] == [-1.0]
    assert np.isfinite(outcome.returns).all()


paths = st.tuples(st.integers(0, 2**32 - 1), st.integers(2, 120))
rule_sets = st.builds(
    TradingRules,
    proba_entry=st.floats(0.5, 1.0),
    proba_exit=st.floats(0.0, 0.5),
    fee_bps=st.floats(0.0, 50.0),
    slippage_bps=st.floats(0.0, 50.0),
    warmup_bars=st.integers(0, 10),
    allow_short=st.booleans(),
)


def draw(path: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(path[0])
    open_, close = random.uniform(8.0, 12.0, (2, path[1]))
    return open_, close, random.random(path[1])


@given(paths, rule_sets)
def test_the_books_agree_bars_trades_and_money(path: tuple[int, int], rules: TradingRules) -> None:
    open_, close, probability = draw(path)
    outcome = simulate(open_, close, probability, rules, starting_equity=100.0)
    end = float(outcome.equity[-1])
    assert end == pytest.approx(100.0 * float(np.prod(1.0 + outcome.returns)), rel=1e-9)
    assert end == pytest.approx(100.0 + sum(trade.pnl for trade in outcome.trades), rel=1e-9, abs=1e-9)
    assert end == pytest.approx(100.0 * float(np.prod([1.0 + r for r in net_returns(outcome)])), rel=1e-9)
    assert len(outcome.fills) == 2 * len(outcome.trades)
    metrics = account_metrics(outcome, close, bars_per_year=35040.0)
    assert metrics["trades"] == len(outcome.trades)
    assert 0.0 <= float(metrics["max_drawdown"] or 0.0) <= 1.0


@given(paths, rule_sets, st.integers(1, 119))
def test_no_bar_depends_on_a_later_one(path: tuple[int, int], rules: TradingRules, cut: int) -> None:
    open_, close, probability = draw(path)
    cut = min(cut, path[1])
    whole = simulate(open_, close, probability, rules)
    part = simulate(open_[:cut], close[:cut], probability[:cut], rules)
    assert part.position.tolist() == whole.position[:cut].tolist()
    assert part.equity[: cut - 1].tolist() == whole.equity[: cut - 1].tolist()


@given(paths, rule_sets)
def test_costs_never_earn(path: tuple[int, int], rules: TradingRules) -> None:
    open_, close, probability = draw(path)
    free = TradingRules(rules.proba_entry, rules.proba_exit, 0.0, 0.0, rules.warmup_bars)
    dear = TradingRules(
        rules.proba_entry, rules.proba_exit, rules.fee_bps, rules.slippage_bps, rules.warmup_bars
    )
    assert simulate(open_, close, probability, dear).equity[-1] <= simulate(
        open_, close, probability, free
    ).equity[-1] * (1 + 1e-12)
