"""The block bootstrap against cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from signalserve.judging.resampling import probability_better, resample, summary_of


def autoregressive(bars: int, seed: int, phi: float = 0.4) -> np.ndarray:
    """An AR(1) series of mean zero, [bars]."""
    noise = np.random.default_rng(seed).normal(scale=1e-3, size=bars)
    series = np.empty(bars)
    series[0] = noise[0]
    for place in range(1, bars):
        series[place] = phi * series[place - 1] + noise[place]
    return series


def test_two_identical_models_get_exactly_one_half() -> None:
    assert probability_better(np.zeros(500)).probability == 0.5


def test_a_shifted_model_is_near_one_and_its_mirror_image_near_zero() -> None:
    shifted = autoregressive(2000, 1) + 5e-4
    assert probability_better(shifted).probability > 0.99
    assert probability_better(-shifted).probability < 0.01


def test_one_seed_gives_one_answer_and_another_seed_another() -> None:
    series = autoregressive(500, 2)
    assert probability_better(series, seed=1) == probability_better(series, seed=1)
    assert probability_better(series, seed=1).probability != probability_better(series, seed=2).probability


def test_the_summary_is_that_of_the_means_that_can_be_drawn() -> None:
    series = autoregressive(500, 3)
    drawn = resample(series, resamples=400, seed=5)
    assert drawn.means.shape == (400,)
    found = summary_of(series, drawn)
    assert found == probability_better(series, resamples=400, seed=5)
    assert (found.low, found.high) == tuple(np.quantile(drawn.means, (0.05, 0.95)))
    assert found.probability == (drawn.means > 0.0).mean()


def test_without_skill_the_probability_passes_a_bound_as_often_as_the_bound_allows() -> None:
    found = [probability_better(autoregressive(600, seed), resamples=300).probability for seed in range(300)]
    # 300 draws: three standard errors of a share of 0.1 are 0.052
    assert np.mean(np.array(found) >= 0.9) <= 0.1 + 0.052
    assert np.mean(np.array(found) <= 0.1) <= 0.1 + 0.052


def test_the_interval_covers_the_true_mean_as_often_as_it_says_also_with_dependence() -> None:
    covered = 0
    for seed in range(200):
        result = probability_better(autoregressive(800, 1000 + seed), resamples=300)
        covered += result.low <= 0.0 <= result.high
    # nominal 90 %; a bootstrap of a dependent mean covers a little less
    assert 0.82 <= covered / 200 <= 0.97


def test_blocks_of_one_bar_would_be_too_sure_of_a_dependent_series() -> None:
    series = autoregressive(2000, 5, phi=0.8)
    blocks, single = probability_better(series), probability_better(series, block_bars=1.0)
    assert blocks.block_bars > 5
    assert blocks.high - blocks.low > 1.5 * (single.high - single.low)


@pytest.mark.parametrize("series", [np.full(10, np.nan), np.zeros(1)])
def test_what_is_no_series_is_refused(series: np.ndarray) -> None:
    with pytest.raises(ValueError, match="finite"):
        probability_better(series)
