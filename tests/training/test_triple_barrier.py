"""The triple barrier: which price is reached first, how far a label has read, and what is not known yet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalserve.config.ml import LabelSettings
from signalserve.features.bars import Bars, read_bars
from signalserve.training.labels import fixed_horizon, make_labels, triple_barrier, volatility

NAN = float("nan")


def label(
    bars: list[tuple[float, float, float]], horizon: int, **more: object
) -> tuple[list[float], list[int]]:
    high, low, close = (np.array(column) for column in zip(*bars, strict=True))
    labels = triple_barrier(
        high,
        low,
        close,
        horizon_bars=horizon,
        up_threshold=0.125,
        down_threshold=-0.125,
        **more,  # type: ignore[arg-type]
    )
    return labels.classes.tolist(), labels.end.tolist()


START = (100.0, 100.0, 100.0)


@pytest.mark.parametrize(
    ("later", "expected", "end"),
    [
        ([(105, 95, 100), (112.5, 99, 100), (100, 80, 90)], 1.0, 2),
        ([(105, 95, 100), (101, 87.5, 100), (120, 99, 110)], 0.0, 2),
        ([(112.5, 87.5, 100), (100, 100, 100), (100, 100, 100)], 0.0, 1),
        ([(112, 88, 100), (112, 88, 100), (112, 88, 100)], NAN, 3),
    ],
    ids=["up first", "down first", "both within one bar counts as down", "neither"],
)
def test_the_barrier_that_is_reached_first_is_the_class(
    later: list[tuple[float, float, float]], expected: float, end: int
) -> None:
    classes, ends = label([START, *later, (100, 100, 100)], 3)
    np.testing.assert_equal(classes[0], expected)
    assert ends[0] == end


def test_the_bar_of_the_entry_itself_touches_nothing() -> None:
    classes, _ = label([(150.0, 50.0, 100.0), START, START, START], 2)
    assert np.isnan(classes[0])


def test_a_late_bar_is_labelled_only_where_a_barrier_was_reached_already() -> None:
    classes, ends = label([START, (105, 95, 100), (104, 87, 90)], 3)
    np.testing.assert_array_equal(classes, [0.0, 0.0, NAN])
    assert ends == [2, 2, 2]


def test_with_volatility_the_barriers_are_as_far_as_the_bars_move() -> None:
    close = np.array([100.0, 101.0, 99.0, 102.0, 100.0, 110.0])
    scale = volatility(close, 3)
    returns = close[1:] / close[:-1] - 1.0
    assert np.isnan(scale[:3]).all()
    np.testing.assert_allclose(scale[3:], [returns[i - 3 : i].std(ddof=1) for i in (3, 4, 5)])
    labels = triple_barrier(
        close, close, close, horizon_bars=1, up_threshold=2.0, down_threshold=-2.0, scale=scale
    )
    # two volatilities from bar 4 on are reached, from bar 3 on they are not; before there is no volatility
    assert np.isnan(labels.classes).tolist() == [True, True, True, True, False, True]
    assert labels.classes[4] == 1.0
    assert labels.forward_return[4] == pytest.approx(2.0 * scale[4])


def test_bars_that_do_not_move_have_no_barrier_and_no_label() -> None:
    flat = np.full(20, 50.0)
    labels = triple_barrier(
        flat, flat, flat, horizon_bars=3, up_threshold=1.0, down_threshold=-1.0, scale=volatility(flat, 4)
    )
    assert not labels.known.any()


@given(
    seed=st.integers(0, 2**32 - 1),
    bars=st.integers(1, 60),
    horizon=st.integers(1, 70),
    up=st.floats(0.005, 0.2),
    down=st.floats(-0.2, -0.005),
)
def test_labels_equal_those_of_a_plain_loop(
    seed: int, bars: int, horizon: int, up: float, down: float
) -> None:
    random = np.random.default_rng(seed)
    close = 100.0 * np.exp(np.cumsum(random.normal(0.0, 0.03, bars)))
    high, low = close * (1 + random.uniform(0, 0.03, bars)), close * (1 - random.uniform(0, 0.03, bars))
    labels = triple_barrier(high, low, close, horizon_bars=horizon, up_threshold=up, down_threshold=down)
    for bar in range(bars):
        expected, move, end = NAN, NAN, min(bar + horizon, bars - 1)
        for seen in range(bar + 1, min(bar + horizon, bars - 1) + 1):
            if low[seen] <= close[bar] * (1 + down):
                expected, move, end = 0.0, down, seen
                break
            if high[seen] >= close[bar] * (1 + up):
                expected, move, end = 1.0, up, seen
                break
        else:
            if bar + horizon < bars:
                move = close[bar + horizon] / close[bar] - 1.0
        np.testing.assert_equal(labels.classes[bar], expected)
        np.testing.assert_allclose(labels.forward_return[bar], move)
        assert labels.end[bar] == end


@given(seed=st.integers(0, 2**32 - 1), cut=st.integers(2, 79), wide=st.booleans())
def test_bars_after_its_end_change_nothing_in_a_label(seed: int, cut: int, wide: bool) -> None:
    random = np.random.default_rng(seed)
    close = 100.0 * np.exp(np.cumsum(random.normal(0.0, 0.02, 80)))
    scale = volatility(close, 5) if wide else None
    changed = close.copy()
    changed[cut:] *= random.uniform(0.5, 2.0, 80 - cut)
    step = 2.0 if wide else 0.03
    known, other = (
        triple_barrier(
            prices * 1.01,
            prices * 0.99,
            prices,
            horizon_bars=9,
            up_threshold=step,
            down_threshold=-step,
            scale=scale,
        )
        for prices in (close, changed)
    )
    before = np.flatnonzero(known.end < cut)
    np.testing.assert_array_equal(known.classes[before], other.classes[before])
    np.testing.assert_array_equal(known.end[before], other.end[before])


def test_the_end_of_a_fixed_horizon_is_its_last_close() -> None:
    labels = fixed_horizon(np.ones(6), horizon_bars=2, up_threshold=0.1, down_threshold=-0.1)
    assert labels.end.tolist() == [2, 3, 4, 5, 5, 5]


def test_barriers_need_a_threshold_on_either_side() -> None:
    one = np.ones(3)
    with pytest.raises(ValueError, match="below 0"):
        triple_barrier(one, one, one, horizon_bars=1, up_threshold=0.1, down_threshold=0.0)


def test_a_models_label_config_gives_its_labels_again_and_what_is_not_ours_gives_none(bar_file: Path) -> None:
    bars: Bars = read_bars(bar_file)
    settings = LabelSettings(
        method="triple_barrier", horizon_bars=12, up_threshold=2.0, down_threshold=-2.0, volatility_bars=50
    )
    own = make_labels(bars, settings)
    stored = LabelSettings.read(settings.model_dump(mode="json", exclude_none=True))
    assert stored is not None
    again = make_labels(bars, stored)
    np.testing.assert_array_equal(own.classes, again.classes)
    share = pd.Series(own.classes).value_counts(normalize=True)
    assert 0.2 < share[1.0] < 0.8
    for strange in ({}, {"horizon_bars": 4}, {"method": "meta_labels", "horizon_bars": 4}):
        assert LabelSettings.read(strange) is None
