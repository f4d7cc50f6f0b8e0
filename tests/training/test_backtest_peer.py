"""The simulated account beside an independent backtesting library on the same signals, trade by trade.

The library gets the opens as its prices (a signal at a close fills at the next open), the costs as a commission
and a bid-offer spread, and one last row: the close at which what is open is sold.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bt
import numpy as np
import pandas as pd
import pytest

from signalserve.features.bars import read_bars
from signalserve.features.synthetic import synthetic_bars
from signalserve.trading.rules import TradingRules
from signalserve.trading.simulation import Simulation, simulate

REAL = Path(__file__).resolve().parents[3] / "shared/data/ohlcv/BTCUSDT_15m.csv"
START = 10_000.0

pytestmark = [
    # the library's own, on this version of pandas
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def frame_of(bars: pd.DataFrame) -> pd.DataFrame:
    """A row a fill price: the opens, and the last close."""
    step = bars.index[1] - bars.index[0]
    prices = np.append(bars["open"].to_numpy(), bars["close"].iloc[-1])
    return pd.DataFrame({"asset": prices}, index=bars.index.append(pd.DatetimeIndex([bars.index[-1] + step])))


def run_peer(prices: pd.DataFrame, algos: list[Any], rules: TradingRules) -> Any:
    fee, slippage = rules.fee_bps / 1e4, rules.slippage_bps / 1e4

    def commission(quantity: float, price: float) -> float:
        return abs(quantity) * price * (1.0 + np.sign(quantity) * slippage) * fee

    strategy = bt.Strategy("peer", algos, [bt.Security("asset")])
    test = bt.Backtest(
        strategy,
        prices,
        initial_capital=START,
        commissions=commission,
        integer_positions=False,
        additional_data={"bidoffer": 2.0 * slippage * prices},
    )
    return bt.run(test)


def weights(prices: pd.DataFrame, run: Simulation) -> pd.DataFrame:
    """The weight wanted from each fill price on: rows where it changes."""
    wanted = pd.DataFrame({"asset": np.append(run.position, 0.0)}, index=prices.index)
    changes = wanted["asset"].diff().fillna(wanted["asset"]) != 0.0
    return wanted[changes]


def signals(bars: pd.DataFrame, seed: int) -> np.ndarray:
    """Probabilities that wander, so that positions are held for a while."""
    random = np.random.default_rng(seed)
    walk = np.convolve(random.normal(size=len(bars) + 20), np.ones(20) / 20, mode="valid")[: len(bars)]
    return np.clip(0.5 + walk, 0.0, 1.0)


def compare(bars: pd.DataFrame, rules: TradingRules, seed: int) -> None:
    prices = frame_of(bars)
    run = simulate(
        bars["open"].to_numpy(),
        bars["close"].to_numpy(),
        signals(bars, seed),
        rules,
        starting_equity=START,
    )
    assert len(run.trades) > 20
    if rules.allow_short:
        algos: list[Any] = [Transact(prices, run)]
    else:
        algos = [bt.algos.WeighTarget(weights(prices, run)), bt.algos.Rebalance()]
    result = run_peer(prices, algos, rules)
    done = result.get_transactions().reset_index()
    ours = fills_of(run, prices, rules)
    assert done["Date"].tolist() == ours["Date"].tolist()
    np.testing.assert_allclose(done["quantity"], ours["quantity"], rtol=1e-9)
    money = result.backtests["peer"].strategy.values
    assert float(money.iloc[-1]) == pytest.approx(float(run.equity[-1]), rel=1e-9)
    # at each fill the money is the same, hence so is each trade's gain
    at_exits = [float(money.loc[date]) for date in ours.loc[ours["flat_after"], "Date"]]
    books = START + np.cumsum([trade.pnl for trade in run.trades])
    np.testing.assert_allclose(at_exits, books[run_ends(run)], rtol=1e-9)


def run_ends(run: Simulation) -> list[int]:
    """The trades after which nothing is held (a flip goes on in the next trade)."""
    return [
        place
        for place, trade in enumerate(run.trades)
        if trade.open_at_end
        or place + 1 == len(run.trades)
        or run.trades[place + 1].entry_bar != trade.exit_bar
    ]


def fills_of(run: Simulation, prices: pd.DataFrame, rules: TradingRules) -> pd.DataFrame:
    """Our fills by date, the two of a flip as one, as the library books them."""
    rows: dict[int, float] = {}
    for trade in run.trades:
        sign = 1.0 if trade.side == "long" else -1.0
        leave = trade.exit_bar + int(trade.open_at_end)
        rows[trade.entry_bar] = rows.get(trade.entry_bar, 0.0) + sign * trade.quantity
        rows[leave] = rows.get(leave, 0.0) - sign * trade.quantity
        slip = rules.slippage_bps / 1e4
        assert trade.entry_price == pytest.approx(prices["asset"].iloc[trade.entry_bar] * (1 + sign * slip))
        assert trade.exit_price == pytest.approx(prices["asset"].iloc[leave] * (1 - sign * slip))
    held = np.append(run.position, 0.0)
    return pd.DataFrame(
        {
            "Date": [prices.index[bar] for bar in sorted(rows)],
            "quantity": [rows[bar] for bar in sorted(rows)],
            "flat_after": [held[bar] == 0.0 for bar in sorted(rows)],
        }
    )


class Transact(bt.Algo):
    """Order our quantities: the library sizes shorts by what they bring in, we by the equity behind them."""

    def __init__(self, prices: pd.DataFrame, run: Simulation) -> None:
        super().__init__()
        self._orders: dict[pd.Timestamp, list[float]] = {}
        for trade in run.trades:
            sign = 1.0 if trade.side == "long" else -1.0
            leave = trade.exit_bar + int(trade.open_at_end)
            self._orders.setdefault(prices.index[trade.entry_bar], []).append(sign * trade.quantity)
            self._orders.setdefault(prices.index[leave], []).insert(0, -sign * trade.quantity)

    def __call__(self, target: Any) -> bool:
        for quantity in self._orders.get(target.now, ()):
            target.transact(quantity, child="asset")
        return True


@pytest.mark.parametrize("costs", [(0.0, 0.0), (5.0, 0.0), (5.0, 2.0)])
def test_long_or_flat_agrees_trade_by_trade_with_the_peers_own_sizing(costs: tuple[float, float]) -> None:
    compare(synthetic_bars("PEER", 2000, seed=3), TradingRules(0.6, 0.45, *costs), seed=1)


def test_long_and_short_agrees_trade_by_trade() -> None:
    compare(synthetic_bars("PEER", 2000, seed=4), TradingRules(0.6, 0.45, 5.0, 2.0, allow_short=True), seed=2)


@pytest.mark.skipif(not REAL.is_file(), reason="no real bars beside the repository")
def test_real_bars_agree_trade_by_trade() -> None:
    compare(read_bars(REAL).frame, TradingRules(0.6, 0.45, 5.0, 2.0), seed=5)
