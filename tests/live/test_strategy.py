import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalserve.live.strategy import MLSignalStrategy, Signal

unit = st.floats(0.0, 1.0)
scores = st.one_of(st.none(), st.just(math.nan), unit)


@st.composite
def strategies(draw: st.DrawFn) -> MLSignalStrategy:
    low, high = sorted([draw(unit), draw(unit)])
    return MLSignalStrategy(high, low, draw(st.integers(0, 20)))


@given(strategies(), st.lists(scores, max_size=60))
def test_signals_alternate_and_none_comes_in_the_warmup_or_without_a_score(strategy, path):
    is_long = False
    for seen, probability in enumerate(path):
        signal = strategy.on_score(probability, bars_seen=seen, is_long=is_long)
        if seen < strategy.warmup_bars or probability is None or math.isnan(probability):
            assert signal is None
        elif signal is Signal.LONG:
            assert not is_long
            assert probability >= strategy.proba_entry
            is_long = True
        elif signal is Signal.CLOSE:
            assert is_long
            assert probability <= strategy.proba_exit
            is_long = False


@given(strategies(), unit, st.integers(0, 100))
def test_a_flat_engine_goes_long_exactly_at_the_entry_and_a_long_one_never_again(strategy, probability, more):
    seen = strategy.warmup_bars + more
    flat = strategy.on_score(probability, bars_seen=seen, is_long=False)
    held = strategy.on_score(probability, bars_seen=seen, is_long=True)
    assert flat is (Signal.LONG if probability >= strategy.proba_entry else None)
    assert held in (None, Signal.CLOSE)
    assert not (flat and held)


def test_between_the_thresholds_nothing_changes_and_on_them_it_does():
    strategy = MLSignalStrategy(0.55, 0.45)
    ask = [
        strategy.on_score(probability, bars_seen=0, is_long=is_long)
        for probability, is_long in [(0.55, False), (0.5, False), (0.5, True), (0.45, True), (0.45, False)]
    ]
    assert ask == [Signal.LONG, None, None, Signal.CLOSE, None]


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
        MLSignalStrategy(entry, leave, warmup)
