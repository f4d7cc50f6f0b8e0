import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalserve.trading.rules import TradingRules
from signalserve.trading.strategy import MLSignalStrategy, Signal

unit = st.floats(0.0, 1.0)
scores = st.one_of(st.none(), st.just(math.nan), unit)
SIDES = {Signal.LONG: 1, Signal.SHORT: -1, Signal.CLOSE: 0}


@st.composite
def rule_sets(draw: st.DrawFn, *, short: bool) -> TradingRules:
    low, high = sorted([draw(unit), draw(unit)])
    return TradingRules(high, low, 0.0, 0.0, warmup_bars=draw(st.integers(0, 20)), allow_short=short)


@given(rule_sets(short=False), st.lists(scores, max_size=60))
def test_signals_alternate_and_none_comes_in_the_warmup_or_without_a_score(rules, path):
    strategy, side = MLSignalStrategy(rules), 0
    for seen, probability in enumerate(path):
        signal = strategy.on_score(probability, side=side, bars_since=seen)
        if seen < rules.warmup_bars or probability is None or math.isnan(probability):
            assert signal is None
        elif signal is Signal.LONG:
            assert side == 0
            assert probability >= rules.proba_entry
        elif signal is Signal.CLOSE:
            assert side == 1
            assert probability <= rules.proba_exit
        assert signal is not Signal.SHORT
        side = side if signal is None else SIDES[signal]


@given(rule_sets(short=True), st.lists(scores, max_size=60))
def test_with_shorts_each_signal_changes_the_side_by_the_threshold_that_it_passed(rules, path):
    strategy, side = MLSignalStrategy(rules), 0
    for seen, probability in enumerate(path):
        signal = strategy.on_score(probability, side=side, bars_since=seen)
        if seen < rules.warmup_bars or probability is None or math.isnan(probability):
            assert signal is None
        if signal is None:
            continue
        assert SIDES[signal] != side
        if side > 0:
            assert probability <= rules.proba_exit
        if side < 0:
            assert probability >= 1.0 - rules.proba_exit
        if signal is Signal.LONG:
            assert probability >= rules.proba_entry
        if signal is Signal.SHORT:
            assert probability <= 1.0 - rules.proba_entry
        side = SIDES[signal]


@given(rule_sets(short=False), unit, st.integers(0, 100))
def test_a_flat_engine_goes_long_exactly_at_the_entry_and_a_long_one_never_again(rules, probability, more):
    strategy, seen = MLSignalStrategy(rules), rules.warmup_bars + more
    flat = strategy.on_score(probability, side=0, bars_since=seen)
    held = strategy.on_score(probability, side=1, bars_since=seen)
    assert flat is (Signal.LONG if probability >= rules.proba_entry else None)
    assert held in (None, Signal.CLOSE)
    assert not (flat and held)


@given(rule_sets(short=True), unit)
def test_a_score_that_enters_a_side_never_leaves_it(rules, probability):
    strategy, seen = MLSignalStrategy(rules), rules.warmup_bars
    entered = strategy.on_score(probability, side=0, bars_since=seen)
    if entered is not None:
        assert strategy.on_score(probability, side=SIDES[entered], bars_since=seen) is None


def test_between_the_thresholds_nothing_changes_and_on_them_it_does():
    strategy = MLSignalStrategy(TradingRules(0.55, 0.45, 0.0, 0.0))
    ask = [
        strategy.on_score(probability, side=side, bars_since=0)
        for probability, side in [(0.55, 0), (0.5, 0), (0.5, 1), (0.45, 1), (0.45, 0)]
    ]
    assert ask == [Signal.LONG, None, None, Signal.CLOSE, None]
    strategy = MLSignalStrategy(TradingRules(0.75, 0.625, 0.0, 0.0, allow_short=True))
    ask = [
        strategy.on_score(probability, side=side, bars_since=0)
        for probability, side in [
            *((0.25, 0), (0.3, 0), (0.3, -1), (0.375, -1), (0.75, -1)),
            *((0.625, 1), (0.25, 1), (0.75, 0)),
        ]
    ]
    assert ask == [
        *(Signal.SHORT, None, None, Signal.CLOSE, Signal.LONG),
        *(Signal.CLOSE, Signal.SHORT, Signal.LONG),
    ]


def test_an_expected_return_is_held_against_basis_points_and_its_mirror_below_zero():
    rules = TradingRules(0.55, 0.45, 5.0, 2.0, allow_short=True, value_exit_bps=4.0)
    strategy = MLSignalStrategy(rules)
    ask = [
        strategy.on_score(bps / 10_000.0, side=side, bars_since=0, output="value")
        for bps, side in [
            *((14.5, 0), (13.5, 0), (4.5, 1), (3.5, 1), (-14.5, 1)),
            *((-13.5, 0), (-14.5, 0), (-4.5, -1), (-3.5, -1), (14.5, -1)),
        ]
    ]
    assert ask == [
        *(Signal.LONG, None, None, Signal.CLOSE, Signal.SHORT),
        *(None, Signal.SHORT, None, Signal.CLOSE, Signal.LONG),
    ]


@pytest.mark.parametrize(
    ("entry", "leave", "says"),
    [
        (10.0, 11.0, "value_exit_bps 11.0 is above value_entry_bps 10.0"),
        (None, 15.0, "value_exit_bps 15.0 is above value_entry_bps 14.0"),
        (-1.0, -2.0, "must be 0 or more"),
        (1.0, math.nan, "finite"),
    ],
)
def test_thresholds_of_expected_returns_that_make_no_sense_are_refused(entry, leave, says):
    with pytest.raises(ValueError, match=says):
        TradingRules(0.55, 0.45, 5.0, 2.0, value_entry_bps=entry, value_exit_bps=leave)


@pytest.mark.parametrize(
    ("entry", "leave", "warmup", "says"),
    [
        (0.4, 0.5, 0, "above proba_entry"),
        (1.1, 0.5, 0, "proba_entry is 1.1"),
        (0.5, -0.1, 0, "proba_exit is -0.1"),
        (math.nan, 0.1, 0, "proba_entry is nan"),
        (0.5, 0.4, -1, "warmup_bars is -1"),
    ],
)
def test_thresholds_that_make_no_sense_are_refused(entry, leave, warmup, says):
    with pytest.raises(ValueError, match=says):
        TradingRules(entry, leave, 0.0, 0.0, warmup)
