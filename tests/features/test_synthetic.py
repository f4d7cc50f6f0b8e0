"""Synthetic bars: labelled, repeatable, and valid for the strict reader."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from signalserve.common.timeframe import bars_per_year, timeframe_delta
from signalserve.features.bars import read_bars
from signalserve.features.synthetic import synthetic_bars


def test_the_same_seed_gives_the_same_bars_and_another_symbol_or_seed_others() -> None:
    first = synthetic_bars("AAA", 200, seed=5)
    pd.testing.assert_frame_equal(first, synthetic_bars("AAA", 200, seed=5))
    assert not np.allclose(first["close"], synthetic_bars("AAA", 200, seed=6)["close"])
    assert not np.allclose(first["close"], synthetic_bars("BBB", 200, seed=5)["close"])


def test_a_longer_run_begins_with_the_shorter_one() -> None:
    pd.testing.assert_frame_equal(
        synthetic_bars("AAA", 900, seed=5).iloc[:200], synthetic_bars("AAA", 200, seed=5), check_freq=False
    )


def test_synthetic_bars_say_that_they_are_made_up() -> None:
    assert "not market data" in synthetic_bars("AAA", 3, seed=5).attrs["synthetic"]


@pytest.mark.parametrize("timeframe", ["1m", "15m", "4h", "1d", "1w"])
def test_synthetic_bars_pass_the_strict_reader_without_a_warning(tmp_path: Path, timeframe: str) -> None:
    frame = synthetic_bars("AAA", 500, seed=9, timeframe=timeframe)
    frame.to_csv(tmp_path / "bars.csv")
    bars = read_bars(tmp_path / "bars.csv", timeframe=timeframe)
    assert bars.warnings == ()
    assert bars.frame.index[1] - bars.frame.index[0] == timeframe_delta(timeframe)


def test_a_year_has_as_many_bars_as_its_minutes_allow() -> None:
    assert bars_per_year("15m") == 4 * 24 * 365
    assert bars_per_year("1d") == 365
