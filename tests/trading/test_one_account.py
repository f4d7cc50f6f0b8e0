"""Live trades what the backtest simulated: every fill and every equity point of both, over the same bars and scores."""

from __future__ import annotations

from dataclasses import astuple
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from signalserve.client import Prediction
from signalserve.features.bars import read_bars
from signalserve.features.pipeline import FeaturePipeline
from signalserve.features.row import FeatureRow
from signalserve.features.synthetic import synthetic_bars
from signalserve.live.bars import Bar, CsvReplay
from signalserve.live.engine import LiveEngine
from signalserve.live.records import LiveResult
from signalserve.live.scoring import LinkReport, Score
from signalserve.trading.rules import TradingRules
from signalserve.trading.simulation import Simulation, simulate
from signalserve.trading.trader import Trader

REAL = Path(__file__).resolve().parents[3] / "shared/data/ohlcv/BTCUSDT_15m.csv"
START = 1000.0
STEP = timedelta(minutes=15)
NAN = float("nan")

Array = NDArray[np.float64]


class Bars:
    """A source of bars from opens and closes."""

    def __init__(self, opened: Array, close: Array) -> None:
        first = datetime(2026, 1, 1, tzinfo=UTC)
        self._bars = [
            Bar(first + place * STEP, one, max(one, last), min(one, last), last, 1.0)
            for place, (one, last) in enumerate(zip(opened.tolist(), close.tolist(), strict=True))
        ]

    def history(self, limit: int) -> list[Bar]:
        return []

    def __iter__(self) -> Any:
        return iter(self._bars)

    def stop(self) -> None:
        raise AssertionError("nobody stops it")


class NoFeatures:
    """A pipeline that computes nothing: the scores are given. Its first `warmup_bars` bars have no features."""

    names = ("a",)
    window_bars = 1

    def __init__(self, warmup_bars: int = 0) -> None:
        self.feature_set = ""
        self.warmup_bars = warmup_bars
        self.window_bars = warmup_bars + 1

    def latest(self, frame: Any) -> FeatureRow:
        return FeatureRow(np.zeros(1), ("nothing",), "")


class Answers:
    """A scorer with the answers in its pocket; NaN is no answer in time, and comes as 1.0 a bar later."""

    deadline = 1.0

    def __init__(self, scores: Array) -> None:
        self._scores = scores.tolist()
        self._late: list[Score] = []

    def score(
        self,
        number: int,
        row: FeatureRow,
        event_time: datetime | None = None,
        *,
        within: float | None = None,
    ) -> Score:
        score = self._scores[number]
        if score == score:
            return Score(number, prediction(score))
        self._late.append(Score(number, prediction(1.0)))
        return Score(number, None, reason="no answer in time", final=False)

    def late(self) -> list[Score]:
        taken, self._late = self._late, []
        return taken

    def wait_late(self, seconds: float) -> bool:
        return False

    def report(self) -> LinkReport:
        return LinkReport(state="connected")

    def close(self) -> None:
        pass


def prediction(score: float) -> Prediction:
    return Prediction(np.array([score]), "model", "", 1, "", None, (), 0, 0.1)


def lived(source: Any, pipeline: Any, scores: Array, rules: TradingRules) -> tuple[LiveResult, Trader]:
    trader = Trader(rules, START)
    return LiveEngine("SYNTH", "15m", source, pipeline, Answers(scores), trader).run(), trader


def compare(result: LiveResult, trader: Trader, expected: Simulation, last_close: float) -> None:
    """Every equity point, position and fill. The backtest closes at the end, so live is made to as well."""
    assert trader.account.position == result.position == result.records[-1].position
    equity = [record.equity for record in result.records]
    assert (equity[-1], result.counts.fills) == (result.equity, len(trader.account.fills))
    np.testing.assert_allclose(equity[:-1], expected.equity[:-1], rtol=1e-12, atol=0.0)
    assert trader.account.close_out(last_close) == pytest.approx(expected.equity[-1], rel=1e-12, abs=0.0)
    if result.position == "flat":
        assert equity[-1] == trader.account.equity
    # a position counts from open to close in a simulation, and a record says what is left at the close
    ruined = [fill.bar for fill in expected.fills if fill.at_close and result.position == "flat"]
    names = [("flat", "long", "short")[int(side)] for side in expected.position]
    assert [record.position for record in result.records] == [
        "flat" if bar in ruined else name for bar, name in enumerate(names)
    ]
    fills = trader.account.fills
    assert len(fills) == len(expected.fills)
    for live, simulated in zip(fills, expected.fills, strict=True):
        assert (live.bar, live.side, live.at_close) == (simulated.bar, simulated.side, simulated.at_close)
        assert (live.price, live.cost, live.quantity, live.fee) == pytest.approx(
            (simulated.price, simulated.cost, simulated.quantity, simulated.fee), rel=1e-12, abs=0.0
        )
    assert [astuple(trade) for trade in trader.account.trades] == [
        astuple(trade) for trade in expected.trades
    ]


def compare_both(
    opened: Array, close: Array, scores: Array, rules: TradingRules, *, warmup: int = 0
) -> Simulation:
    seen = scores.copy()
    seen[:warmup] = NAN
    expected = simulate(opened, close, seen, rules, starting_equity=START)
    result, trader = lived(Bars(opened, close), NoFeatures(warmup), scores, rules)
    compare(result, trader, expected, float(close[-1]))
    return expected


@st.composite
def rule_sets(draw: st.DrawFn) -> TradingRules:
    leave, entry = sorted(draw(st.tuples(st.floats(0.0, 1.0), st.floats(0.0, 1.0))))
    return TradingRules(
        entry,
        draw(st.sampled_from([leave, entry])),
        fee_bps=draw(st.floats(0.0, 50.0)),
        slippage_bps=draw(st.floats(0.0, 50.0)),
        warmup_bars=draw(st.integers(0, 8)),
        allow_short=draw(st.booleans()),
    )


@st.composite
def markets(draw: st.DrawFn) -> tuple[Array, Array, Array]:
    """Opens and closes that move as far as ruins a short, and scores; one in five is missing."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    bars = draw(st.integers(2, 60))
    close = 100.0 * np.exp(np.cumsum(draw(st.sampled_from([0.01, 0.2])) * random.standard_normal(bars)))
    opened = close * np.exp(0.1 * random.standard_normal(bars))
    scores = np.where(random.random(bars) < 0.2, NAN, random.integers(0, 21, bars) / 20.0)
    return opened, close, scores


HALF = TradingRules(0.5, 0.5, 5.0, 2.0, allow_short=True)


@given(markets(), rule_sets(), st.integers(0, 5))
@example((np.full(4, 10.0), np.full(4, 10.0), np.array([0.5, 0.5, NAN, 0.5])), HALF, 0)
def test_live_trades_what_the_backtest_simulated(
    market: tuple[Array, Array, Array], rules: TradingRules, warmup: int
) -> None:
    compare_both(*market, rules, warmup=min(warmup, len(market[0]) - 1))


def random_market(seed: int, *, steps: float = 0.01) -> tuple[Array, Array, Array]:
    random = np.random.default_rng(seed)
    close = 100.0 * np.exp(np.cumsum(steps * random.standard_normal(600)))
    opened = close * (1.0 + 0.001 * random.standard_normal(600))
    scores = np.where(random.random(600) < 0.1, NAN, random.random(600))
    return opened, close, scores


@pytest.mark.parametrize("short", [False, True])
def test_it_does_over_many_fills_with_a_warm_up_after_that_of_the_features(short: bool) -> None:
    rules = TradingRules(0.6, 0.4, 5.0, 2.0, warmup_bars=30, allow_short=short)
    expected = compare_both(*random_market(1), rules, warmup=50)
    assert len(expected.fills) > 150
    assert {trade.side for trade in expected.trades} == ({"long", "short"} if short else {"long"})
    assert 80 < expected.fills[0].bar < 90
    flips = {
        fill.bar for fill in expected.fills if [other.bar for other in expected.fills].count(fill.bar) > 1
    }
    assert bool(flips) == short


@pytest.mark.parametrize("at", ["open", "close"])
def test_it_does_where_a_short_loses_everything(at: str) -> None:
    opened, close = np.full(8, 10.0), np.full(8, 10.0)
    opened[4:] = 30.0 if at == "open" else 11.0
    close[4:] = 30.0
    scores = np.array([0.5, 0.1, 0.1, 0.9, 0.1, 0.9, 0.1, 0.1])
    rules = TradingRules(0.6, 0.4, 5.0, 2.0, allow_short=True)
    if at == "close":
        scores[3] = 0.5
    expected = compare_both(opened, close, scores, rules)
    assert expected.equity.tolist()[4:] == [0.0] * 4
    assert [fill.at_close for fill in expected.fills] == [False, at == "close"]
    result, _ = lived(Bars(opened, close), NoFeatures(), scores, rules)
    assert [record.signal for record in result.records[4:]] == [None] * 4
    assert {record.note for record in result.records[4:]} == {"everything is lost: nothing more is traded"}


def test_it_does_behind_the_real_features(tmp_path: Path) -> None:
    path = tmp_path / "SYNTH_15m.csv"
    synthetic_bars("SYNTH", 400, seed=4).to_csv(path)
    compare_on_file(path, FeaturePipeline("core"))


@pytest.mark.skipif(not REAL.is_file(), reason="no real bars beside the repository")
def test_it_does_over_real_bars() -> None:
    compare_on_file(REAL, NoFeatures(200))


def compare_on_file(path: Path, pipeline: Any) -> None:
    frame = read_bars(path).frame
    scores = np.random.default_rng(3).random(len(frame))
    rules = TradingRules(0.7, 0.45, 5.0, 2.0, warmup_bars=10, allow_short=True)
    seen = np.where(np.arange(len(frame)) < pipeline.warmup_bars, NAN, scores)
    opened, close = frame["open"].to_numpy(), frame["close"].to_numpy()
    expected = simulate(opened, close, seen, rules, starting_equity=START)
    result, trader = lived(CsvReplay(path), pipeline, scores, rules)
    compare(result, trader, expected, float(close[-1]))
    assert len(expected.fills) > (len(frame) - pipeline.warmup_bars) / 10
