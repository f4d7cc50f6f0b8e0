"""A feature that knows the future is found, named, and trains nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from signalserve.config.settings import Settings
from signalserve.features import columns, pipeline
from signalserve.features.pipeline import PRESETS, FeaturePipeline
from signalserve.features.synthetic import synthetic_bars
from signalserve.registry import load_registry
from signalserve.training.errors import TrainingError
from signalserve.training.leakage import LookAheadError, check_no_lookahead, random_cuts
from signalserve.training.request import TrainRequest
from signalserve.training.run import train

BARS = synthetic_bars("LEAK", 700, seed=2)


def next_close(bars: columns.BarArrays) -> columns.Columns:
    """The return to the next close: what a label knows and a feature must not."""
    return {"innocent_name": np.append(bars.close[1:], bars.close[-1]) / bars.close - 1.0}


@pytest.fixture
def leaky(monkeypatch: pytest.MonkeyPatch) -> str:
    groups, warmup, window = pipeline._PRESETS["core"]
    monkeypatch.setitem(pipeline._PRESETS, "leaky", ((*groups, next_close), warmup, window))
    return "leaky"


@pytest.mark.parametrize("preset", PRESETS)
def test_our_own_features_know_no_bar_after_their_own(preset: str) -> None:
    own = FeaturePipeline(preset)
    check_no_lookahead(
        own.transform, BARS, cuts=[1, 200, *random_cuts(700, warmup=200, count=5, seed=0), 699]
    )


def test_a_planted_next_close_is_caught_by_name(leaky: str) -> None:
    with pytest.raises(LookAheadError, match="innocent_name read bars after their own") as caught:
        check_no_lookahead(FeaturePipeline(leaky).transform, BARS, cuts=[450])
    assert caught.value.columns == ("innocent_name",)


@pytest.mark.parametrize(
    "peek",
    [
        lambda close: close / close.mean(),
        lambda close: close.rank(pct=True),
        lambda close: close.rolling(5, center=True, min_periods=1).mean(),
        lambda close: close.shift(-3),
    ],
    ids=["scaled by all bars", "ranked among all bars", "centred window", "shifted"],
)
def test_subtler_ways_to_know_the_future_are_caught_too(peek: Callable[[pd.Series], pd.Series]) -> None:
    def transform(frame: pd.DataFrame) -> pd.DataFrame:
        close = frame["close"]
        return pd.DataFrame({"past": close.ewm(span=9).mean(), "future": peek(close)})

    with pytest.raises(LookAheadError) as caught:
        check_no_lookahead(transform, BARS, cuts=[300])
    assert caught.value.columns == ("future",)


def test_a_leaky_preset_trains_nothing_though_its_metrics_would_be_splendid(
    settings: Settings, bar_file: Path, tmp_path: Path, leaky: str
) -> None:
    request = TrainRequest.from_settings(
        settings, "SYNTH", preset=leaky, ohlcv=bar_file, output_dir=tmp_path / "models"
    )
    with pytest.raises(TrainingError, match="innocent_name read bars after their own") as caught:
        train(request)
    [entry] = load_registry(tmp_path / "models")
    assert (entry.status, entry.model_id) == ("failed", caught.value.model_id)


def test_cuts_are_drawn_by_the_seed_beyond_the_warm_up() -> None:
    cuts = random_cuts(1000, warmup=200, count=4, seed=3)
    assert (
        cuts
        == random_cuts(1000, warmup=200, count=4, seed=3)
        != random_cuts(1000, warmup=200, count=4, seed=4)
    )
    assert all(200 < cut < 1000 for cut in cuts)
    assert random_cuts(202, warmup=200, count=4, seed=3) == [201]
