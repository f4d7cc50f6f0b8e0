"""Labels look forward by the horizon and no further; the split never lets them see the test span."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalserve.training.errors import TrainingError
from signalserve.training.labels import fixed_horizon
from signalserve.training.split import chronological_split


def test_a_bar_is_labelled_by_its_return_over_the_horizon() -> None:
    close = np.array([100.0, 100.0, 103.0, 97.0, 100.5, 100.0])
    labels = fixed_horizon(close, horizon_bars=2, up_threshold=0.02, down_threshold=-0.02)
    np.testing.assert_allclose(labels.forward_return[:4], [0.03, -0.03, 100.5 / 103 - 1, 100 / 97 - 1])
    np.testing.assert_array_equal(labels.classes, [1.0, 0.0, 0.0, 1.0, np.nan, np.nan])
    assert labels.known.tolist() == [True, True, True, True, False, False]


def test_moves_between_the_thresholds_have_no_class() -> None:
    close = np.array([100.0, 100.1, 100.2, 100.1])
    labels = fixed_horizon(close, horizon_bars=1, up_threshold=0.01, down_threshold=-0.01)
    assert not labels.known.any()
    assert np.isfinite(labels.forward_return[:3]).all()


def test_a_move_of_exactly_a_threshold_has_its_class() -> None:
    labels = fixed_horizon(
        np.array([4.0, 5.0, 3.75]), horizon_bars=1, up_threshold=0.25, down_threshold=-0.25
    )
    assert labels.classes[:2].tolist() == [1.0, 0.0]


@given(
    close=st.lists(st.floats(0.5, 2.0), min_size=1, max_size=60),
    horizon=st.integers(1, 70),
    up=st.floats(0.0, 0.3),
    down=st.floats(-0.3, 0.0),
)
def test_the_last_bars_never_have_a_label_and_the_others_follow_the_rule(
    close: list[float], horizon: int, up: float, down: float
) -> None:
    labels = fixed_horizon(np.array(close), horizon_bars=horizon, up_threshold=up, down_threshold=down)
    assert not labels.known[max(0, len(close) - horizon) :].any()
    for bar in range(len(close) - horizon):
        move = close[bar + horizon] / close[bar] - 1.0
        expected = 1.0 if move >= up else 0.0 if move <= down else np.nan
        np.testing.assert_equal(labels.classes[bar], expected)


def test_thresholds_and_horizons_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        fixed_horizon(np.ones(3), horizon_bars=0, up_threshold=0.0, down_threshold=0.0)
    with pytest.raises(ValueError, match="must not be above"):
        fixed_horizon(np.ones(3), horizon_bars=1, up_threshold=-0.1, down_threshold=0.1)


@given(
    n_bars=st.integers(0, 3000),
    first=st.integers(0, 300),
    fraction=st.floats(0.01, 0.89),
    embargo=st.integers(1, 100),
)
def test_no_training_label_reads_a_bar_of_the_test_span(
    n_bars: int, first: int, fraction: float, embargo: int
) -> None:
    try:
        split = chronological_split(n_bars, first=first, test_fraction=fraction, embargo=embargo)
    except TrainingError as error:
        assert "too few" in str(error)
        return
    assert split.train.start == first
    assert split.test.stop == n_bars
    # the label of the last training bar reads the close of the bar just before the test span
    assert split.train[-1] + embargo == split.test.start - 1
    assert abs(len(split.test) - fraction * (n_bars - first)) <= 0.5
