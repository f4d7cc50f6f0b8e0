from pathlib import Path

import numpy as np
import pytest

from signalserve.features.bars import read_bars
from signalserve.features.pipeline import PRESETS, FeaturePipeline
from signalserve.features.synthetic import synthetic_bars
from signalserve.live.bars import Bar
from signalserve.live.window import BarWindow

REAL = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "ohlcv"


def compare(frame, pipeline, every=1):
    """Features of a live window against those of the whole history, bar by bar."""
    offline = pipeline.transform(frame).to_numpy()
    window = BarWindow(pipeline.window_bars)
    compared = 0
    for place, (time, row) in enumerate(zip(frame.index, frame.to_numpy(), strict=True)):
        window.append(Bar(time.to_pydatetime(), *row.tolist()))
        if len(window) > pipeline.warmup_bars and place % every == 0:
            live = pipeline.latest(window.frame())
            np.testing.assert_allclose(live, offline[place], rtol=1e-9, atol=1e-12)
            compared += 1
    return compared


@pytest.mark.parametrize("preset", PRESETS)
def test_live_features_equal_offline_ones_on_synthetic_bars(preset):
    pipeline = FeaturePipeline(preset)
    frame = synthetic_bars("SYNTH", pipeline.window_bars + 300, seed=8)
    assert compare(frame, pipeline, every=7) > 100


@pytest.mark.parametrize("symbol", ["BTCUSDT", "BCHUSDT", "ETHBTC", "LTCBTC", "XLMBTC"])
def test_live_features_equal_offline_ones_on_real_bars(symbol):
    path = REAL / f"{symbol}_15m.csv"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    frame = read_bars(path).frame.iloc[-2500:]
    assert compare(frame, FeaturePipeline("core"), every=11) > 100
