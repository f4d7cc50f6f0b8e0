import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalserve.trading.account import Account
from signalserve.trading.rules import TradingRules
from signalserve.trading.simulation import simulate
from signalserve.trading.strategy import Signal
from signalserve.trading.trader import Trader

prices = st.floats(1.0, 1000.0)
steps = st.lists(st.tuples(prices, prices, st.sampled_from([None, *Signal])), min_size=1, max_size=40)


def account(equity=1000.0, *, fee_bps=0.0, slippage_bps=0.0):
    return Account(TradingRules(0.6, 0.4, fee_bps, slippage_bps, allow_short=True), equity)


@given(steps, st.floats(0.0, 50.0), st.floats(0.0, 50.0))
def test_equity_is_what_a_ledger_of_cash_and_coins_says(path, fee_bps, slippage_bps):
    paper = account(fee_bps=fee_bps, slippage_bps=slippage_bps)
    cash, coins, order, trades, spent = 1000.0, 0.0, None, 0, 0.0
    fee, slippage = fee_bps / 10_000.0, slippage_bps / 10_000.0

    def trade(quantity, price):
        """Coins bought above zero, or sold below it."""
        nonlocal cash, coins, trades, spent
        value = quantity * price * (1.0 + math.copysign(slippage, quantity))
        cash -= value + abs(value) * fee
        spent += abs(value) * fee + abs(quantity) * price * slippage
        coins, trades = coins + quantity, trades + 1

    for opened, close, signal in path:
        paper.open_bar(opened)
        if (
            coins
            and order is not None
            and (order is Signal.LONG, order is Signal.SHORT) != (coins > 0, coins < 0)
        ):
            trade(-coins, opened)
            coins, cash = 0.0, max(cash, 0.0)
        if not coins and order in (Signal.LONG, Signal.SHORT) and cash > 0.0:
            side = 1 if order is Signal.LONG else -1
            trade(side * cash / (1.0 + fee) / (opened * (1.0 + side * slippage)), opened)
        order = signal
        paper.order(signal)
        if coins < 0.0 and cash + coins * close <= 0.0:
            trade(-coins, close)
            coins, cash = 0.0, 0.0
        assert paper.mark(close) == pytest.approx(cash + coins * close, rel=1e-12, abs=1e-12)
        assert paper.side == (coins > 0.0) - (coins < 0.0)
        assert paper.position == ("long" if coins > 0.0 else "short" if coins < 0.0 else "flat")
    assert len(paper.fills) == trades
    assert sum(fill.cost for fill in paper.fills) == pytest.approx(spent, rel=1e-12, abs=1e-12)


def test_the_same_scores_earn_on_paper_what_the_backtest_says():
    random = np.random.default_rng(5)
    close = 100.0 * np.exp(np.cumsum(0.01 * random.standard_normal(500)))
    opened = close * (1.0 + 0.001 * random.standard_normal(500))
    probability = random.random(500)
    probability[-2:] = 0.0  # the backtest sells at the end, paper keeps what it has: end flat
    rules = TradingRules(0.6, 0.4, fee_bps=5.0, slippage_bps=2.0)
    paper = Trader(rules, 1.0)
    equity = []
    for bar in range(500):
        paper.open_bar(opened[bar])
        paper.close_bar(close[bar], probability[bar])
        equity.append(paper.account.equity)
    result = simulate(opened, close, probability, rules)
    np.testing.assert_allclose(equity, result.equity, rtol=1e-12)
    assert len(paper.account.fills) > 20


def test_a_signal_fills_at_the_next_open_and_only_once():
    paper = account(fee_bps=10.0)
    paper.order(Signal.LONG)
    assert not paper.side
    (fill,) = paper.open_bar(50.0)
    assert (fill.side, fill.price, fill.cost) == ("buy", 50.0, pytest.approx(1000.0 / 1001.0))
    assert paper.mark(100.0) == pytest.approx(2000.0 / 1.001)
    assert paper.open_bar(70.0) == ()
    paper.order(Signal.LONG)
    assert paper.open_bar(70.0) == ()


def test_a_flip_is_two_fills_of_one_open_and_each_of_them_pays():
    paper = account(fee_bps=10.0, slippage_bps=100.0)
    paper.order(Signal.SHORT)
    (sold,) = paper.open_bar(50.0)
    assert (sold.bar, sold.side, sold.price) == (0, "sell", 49.5)
    assert sold.quantity == pytest.approx(1000.0 / (49.5 * 1.001))
    assert sold.cost == pytest.approx(sold.quantity * (0.5 + 49.5 * 0.001))
    paper.order(Signal.LONG)
    back, bought = paper.open_bar(40.0)
    assert [(fill.bar, fill.side, fill.price) for fill in (back, bought)] == [(1, "buy", 40.4)] * 2
    assert back.quantity == sold.quantity
    (trade,) = paper.trades
    assert (trade.side, trade.pnl) == ("short", pytest.approx(bought.quantity * 40.4 * 1.001 - 1000.0))
    assert paper.position == "long"


@pytest.mark.parametrize("at", ["open", "close"])
def test_an_account_that_lost_everything_trades_no_more(at):
    trader = Trader(TradingRules(0.6, 0.4, 5.0, 2.0, allow_short=True), 1000.0)
    trader.open_bar(10.0)
    assert trader.close_bar(10.0, 0.1) is Signal.SHORT
    trader.open_bar(10.0)
    if at == "open":
        assert trader.close_bar(10.0, 0.5) is None
        assert trader.close_bar(10.0, 0.7) is Signal.LONG
        assert [fill.side for fill in trader.open_bar(30.0)] == ["buy"]
    assert trader.close_bar(30.0, 0.9) is None
    assert (trader.account.ruined, trader.account.equity, trader.account.position) == (True, 0.0, "flat")
    assert trader.account.fills[-1].at_close == (at == "close")
    trader.open_bar(1.0)
    assert trader.close_bar(1.0, 0.9) is None
    assert len(trader.account.fills) == 2
    assert [trade.net_return for trade in trader.account.trades] == [-1.0]


@pytest.mark.parametrize(
    ("equity", "fee", "slippage"),
    [(0.0, 0.0, 0.0), (float("nan"), 0.0, 0.0), (1.0, -1.0, 0.0), (1.0, 5000.0, 5000.0)],
)
def test_costs_and_equity_that_make_no_sense_are_refused(equity, fee, slippage):
    with pytest.raises(ValueError, match=r"must be above 0|make no sense"):
        account(equity, fee_bps=fee, slippage_bps=slippage)
