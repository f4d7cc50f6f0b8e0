"""A model's positions are held against their own copies, shifted round the window."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.gate import Market, Search
from signalserve.judging import timing
from signalserve.judging.timing import shifted_means


@given(st.integers(2, 60), st.integers(0, 10_000))
def test_each_copy_gains_what_its_positions_would(bars: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    close = np.cumprod(1.0 + random.normal(0.0, 0.02, bars))
    open_ = close * (1.0 + random.normal(0.0, 0.01, bars))
    position = random.choice([-1.0, 0.0, 1.0], bars)
    expected = [
        sum(
            shifted[bar] * (close[bar] / open_[bar] - 1.0)
            + (shifted[bar - 1] * (open_[bar] / close[bar - 1] - 1.0) if bar else 0.0)
            for bar in range(bars)
        )
        / bars
        for shifted in (np.roll(position, by) for by in range(bars))
    ]
    np.testing.assert_allclose(shifted_means(position, open_, close), expected, atol=1e-12)


@pytest.mark.parametrize("held", [0.0, 1.0, -1.0])
def test_who_holds_always_or_never_has_no_timing(held: float) -> None:
    close = np.cumprod(1.0 + np.random.default_rng(0).normal(0.001, 0.01, 999))
    open_ = np.concatenate(([1.0], close[:-1]))
    assert timing(np.full(999, held), open_, close).probability == pytest.approx(0.5, abs=0.001)


def test_the_best_time_is_told_from_every_other_one() -> None:
    returns = np.zeros(500)
    returns[[100, 300]] = 0.1
    close = np.cumprod(1.0 + returns)
    open_ = np.concatenate(([1.0], close[:-1]))
    assert timing(returns * 10, open_, close).probability == 1.0 - 1.0 / 500
    assert timing(-returns * 10, open_, close).probability < 0.01


@pytest.mark.parametrize("drift", [-0.0003, 0.0, 0.0003])
def test_signals_without_skill_pass_the_gate_no_more_often_than_it_says(drift: float) -> None:
    """Nominal are 10 in a hundred; 60 searches of which as many are lucky show more than 20 in one of 200 times."""
    passed = [
        Search(Market("", drift), champion=False, seed=seed).looks(1, 0.0).as_made for seed in range(60)
    ]
    assert np.mean(passed) <= 0.2


def test_signals_with_skill_pass_the_gate() -> None:
    passed = [
        Search(Market("stays"), champion=False, seed=seed).looks(1, 0.2).as_made[0] for seed in range(20)
    ]
    assert np.mean(passed) > 0.5
