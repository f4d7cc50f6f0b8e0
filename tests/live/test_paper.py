import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalserve.live.paper import PaperPosition
from signalserve.live.strategy import MLSignalStrategy, Signal
from signalserve.training.simulation import Rules, simulate

prices = st.floats(1.0, 1000.0)
steps = st.lists(st.tuples(prices, prices, st.sampled_from([None, *Signal])), min_size=1, max_size=40)


@given(steps, st.floats(0.0, 50.0), st.floats(0.0, 50.0))
def test_equity_is_what_a_ledger_of_cash_and_coins_says(path, fee_bps, slippage_bps):
    paper = PaperPosition(1000.0, fee_bps=fee_bps, slippage_bps=slippage_bps)
    cash, coins, order, trades = 1000.0, 0.0, None, 0
    for opened, close, signal in path:
        paper.open_bar(opened)
        fee, slippage = fee_bps / 10_000.0, slippage_bps / 10_000.0
        if order is Signal.LONG and coins == 0.0:
            coins, trades = cash / (1.0 + fee) / (opened * (1.0 + slippage)), trades + 1
            cash = 0.0
        elif order is Signal.CLOSE and coins > 0.0:
            proceeds = coins * opened * (1.0 - slippage)
            cash, coins, trades = proceeds - proceeds * fee, 0.0, trades + 1
        order = signal
        paper.order(signal)
        assert paper.mark(close) == pytest.approx(cash + coins * close, rel=1e-12)
        assert paper.is_long == (coins > 0.0)
        assert paper.name == ("long" if coins else "flat")
    assert len(paper.fills) == trades


def test_the_same_scores_earn_on_paper_what_the_backtest_says():
    random = np.random.default_rng(5)
    close = 100.0 * np.exp(np.cumsum(0.01 * random.standard_normal(500)))
    opened = close * (1.0 + 0.001 * random.standard_normal(500))
    probability = random.random(500)
    probability[-2:] = 0.0  # the backtest sells at the end, paper keeps what it has: end flat
    strategy = MLSignalStrategy(0.6, 0.4)
    paper = PaperPosition(1.0, fee_bps=5.0, slippage_bps=2.0)
    equity = []
    for bar in range(500):
        paper.open_bar(opened[bar])
        paper.order(strategy.on_score(probability[bar], bars_seen=bar, is_long=paper.is_long))
        equity.append(paper.mark(close[bar]))
    result = simulate(opened, close, probability, Rules(0.6, 0.4, fee_bps=5.0, slippage_bps=2.0))
    np.testing.assert_allclose(equity, result.equity, rtol=1e-12)
    assert len(paper.fills) > 20


def test_a_signal_fills_at_the_next_open_and_only_once():
    paper = PaperPosition(1000.0, fee_bps=10.0)
    paper.order(Signal.LONG)
    assert not paper.is_long
    fill = paper.open_bar(50.0)
    assert (fill.signal, fill.price, fill.cost) == (Signal.LONG, 50.0, pytest.approx(1000.0 / 1001.0))
    assert paper.mark(100.0) == pytest.approx(2000.0 / 1.001)
    assert paper.open_bar(70.0) is None
    paper.order(Signal.LONG)
    assert paper.open_bar(70.0) is None


@pytest.mark.parametrize(
    ("equity", "fee", "slippage"),
    [(0.0, 0.0, 0.0), (float("nan"), 0.0, 0.0), (1.0, -1.0, 0.0), (1.0, 5000.0, 5000.0)],
)
def test_costs_and_equity_that_make_no_sense_are_refused(equity, fee, slippage):
    with pytest.raises(ValueError, match=r"must be above 0|make no sense"):
        PaperPosition(equity, fee_bps=fee, slippage_bps=slippage)
