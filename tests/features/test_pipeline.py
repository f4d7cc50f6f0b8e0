"""The feature pipeline: no look-ahead, a bounded window, free of scale, never a hole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import talib
from hypothesis import given, settings
from hypothesis import strategies as st

from signalserve.features.bars import read_bars
from signalserve.features.errors import BarsError, UnknownPresetError
from signalserve.features.pipeline import PRESETS, FeaturePipeline
from signalserve.features.synthetic import synthetic_bars

REAL = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "ohlcv"
PRICES = ["open", "high", "low", "close"]

CORE = FeaturePipeline("core")
EXTENDED = FeaturePipeline("extended")
PIPELINES = pytest.mark.parametrize("pipeline", [CORE, EXTENDED], ids=lambda item: item.preset)


@st.composite
def awkward_bars(draw: st.DrawFn, *, segments: int = 8, longest: int = 90) -> pd.DataFrame:
    """Bars of every mood: walks, jumps, long stretches without movement, without volume, with high == low."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kinds = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["walk", "still", "no_volume", "point_bars", "jump", "wild"]),
                st.integers(1, longest),
            ),
            min_size=segments,
            max_size=segments,
        )
    )
    start = draw(st.sampled_from([3e-8, 3e-5, 1.0, 250.0, 60_000.0]))
    moves, wick, volume = [], [], []
    for kind, length in [("walk", 205), *kinds]:
        size = {"still": 0.0, "wild": 0.1}.get(kind, 0.002)
        move = size * random.standard_normal(length)
        if kind == "jump":
            move[0] = random.choice([-1.5, 1.5])
        moves.append(move)
        flat = kind in {"still", "point_bars"}
        wick.append(np.zeros(length) if flat else 0.001 * random.random(length))
        volume.append(np.zeros(length) if kind == "no_volume" else random.lognormal(3.0, 1.0, length))
    close = start * np.exp(np.cumsum(np.concatenate(moves)))
    opened = np.concatenate(([start], close[:-1]))
    gap = np.concatenate(wick)
    return pd.DataFrame(
        {
            "open": opened,
            "high": np.maximum(opened, close) * (1.0 + gap),
            "low": np.minimum(opened, close) * (1.0 - gap),
            "close": close,
            "volume": np.concatenate(volume),
        },
        index=pd.date_range("2024-01-01", periods=len(close), freq="15min", tz="UTC", name="timestamp"),
    )


def agree(left: np.ndarray, right: np.ndarray, *, relative: float, absolute: float) -> None:
    np.testing.assert_allclose(left, right, rtol=relative, atol=absolute, equal_nan=True)


@PIPELINES
def test_a_preset_has_at_least_thirty_columns_with_unique_names(pipeline: FeaturePipeline) -> None:
    assert len(pipeline.names) == len(set(pipeline.names)) >= 30
    frame = pipeline.transform(synthetic_bars("SYNTH", 300, seed=1))
    assert tuple(frame.columns) == pipeline.names
    assert set(frame.dtypes) == {np.dtype("float64")}


def test_extended_holds_every_column_of_core_with_the_same_values() -> None:
    assert set(CORE.names) < set(EXTENDED.names)
    bars = synthetic_bars("SYNTH", 400, seed=1)
    pd.testing.assert_frame_equal(EXTENDED.transform(bars)[list(CORE.names)], CORE.transform(bars))


def test_an_unknown_preset_names_those_that_exist() -> None:
    with pytest.raises(UnknownPresetError, match="core, extended"):
        FeaturePipeline("everything")
    assert PRESETS == ("core", "extended")


@PIPELINES
@pytest.mark.parametrize("length", [0, 1, 199, 200, 201])
def test_rows_are_all_nan_in_the_warmup_and_whole_after_it(pipeline: FeaturePipeline, length: int) -> None:
    features = pipeline.transform(synthetic_bars("SYNTH", length, seed=1))
    assert features.shape == (length, len(pipeline.names))
    assert features.iloc[: pipeline.warmup_bars].isna().all(axis=None)
    assert np.isfinite(features.iloc[pipeline.warmup_bars :].to_numpy()).all()


@settings(max_examples=25, deadline=None)
@given(bars=awkward_bars())
def test_no_stretch_of_bars_however_odd_leaves_a_hole_or_an_infinity(bars: pd.DataFrame) -> None:
    features = EXTENDED.transform(bars).iloc[EXTENDED.warmup_bars :]
    assert np.isfinite(features.to_numpy()).all()
    shares = features[[name for name in features if name.startswith(("stoch", "donchian", "up_volume"))]]
    assert shares.ge(-1e-9).all(axis=None)
    assert shares.le(1 + 1e-9).all(axis=None)
    balanced = features[[name for name in features if name.startswith(("rsi", "dm_", "aroon", "efficiency"))]]
    assert balanced.abs().le(1 + 1e-9).all(axis=None)


@settings(max_examples=20, deadline=None)
@given(bars=awkward_bars(), share=st.floats(0.0, 1.0))
def test_no_feature_reads_beyond_its_own_bar(bars: pd.DataFrame, share: float) -> None:
    cut = EXTENDED.warmup_bars + 1 + int(share * (len(bars) - EXTENDED.warmup_bars - 1))
    whole = EXTENDED.transform(bars).to_numpy()[:cut]
    truncated = EXTENDED.transform(bars.iloc[:cut]).to_numpy()
    agree(truncated, whole, relative=0.0, absolute=0.0)


@settings(max_examples=15, deadline=None)
@given(bars=awkward_bars(segments=20, longest=160), data=st.data())
def test_the_last_window_of_bars_gives_the_features_of_the_whole_history(
    bars: pd.DataFrame, data: st.DataObject
) -> None:
    for pipeline in (CORE, EXTENDED):
        if len(bars) <= pipeline.window_bars:
            continue
        whole = pipeline.transform(bars).to_numpy()
        for _ in range(5):
            cut = data.draw(st.integers(pipeline.window_bars + 1, len(bars)))
            agree(pipeline.latest(bars.iloc[:cut]), whole[cut - 1], relative=1e-9, absolute=1e-12)


@settings(max_examples=15, deadline=None)
@given(bars=awkward_bars(), factor=st.sampled_from([1e-6, 1e-3, 7.0, 1e6]))
def test_multiplying_prices_or_volumes_changes_no_feature(bars: pd.DataFrame, factor: float) -> None:
    scaled = bars.copy()
    scaled[PRICES] *= factor
    scaled["volume"] *= 1.0 / factor
    left, right = EXTENDED.transform(scaled), EXTENDED.transform(bars)
    agree(left.to_numpy(), right.to_numpy(), relative=1e-6, absolute=1e-6)


@pytest.mark.parametrize("factor", [1e-12, 1e-6, 1e6])
def test_a_coin_worth_next_to_nothing_has_the_features_of_any_other(factor: float) -> None:
    bars = synthetic_bars("SYNTH", 500, seed=1, start_price=3e-5)
    small = bars.copy()
    small[PRICES] *= factor
    agree(
        EXTENDED.transform(small).to_numpy(),
        EXTENDED.transform(bars).to_numpy(),
        relative=1e-6,
        absolute=1e-6,
    )


def test_rounding_noise_on_a_still_price_is_no_movement() -> None:
    still = synthetic_bars("SYNTH", 400, seed=1)
    still[PRICES] = 3.817e-05
    noisy = still.copy()
    noisy.loc[noisy.index[::3], ["high", "close"]] = np.nextafter(3.817e-05, 1.0)
    agree(
        EXTENDED.transform(noisy).to_numpy(),
        EXTENDED.transform(still).to_numpy(),
        relative=0.0,
        absolute=1e-12,
    )


@PIPELINES
def test_a_price_that_never_moves_has_defined_features(pipeline: FeaturePipeline) -> None:
    bars = synthetic_bars("SYNTH", 400, seed=1)
    bars[PRICES] = 3.817e-05
    bars["volume"] = 0.0
    last = pipeline.transform(bars).iloc[-1]
    neutral = {name: 0.5 for name in pipeline.names if name.startswith(("stoch", "donchian", "up_volume"))}
    for name in pipeline.names:
        if not name.startswith(("hour", "weekday")):
            assert last[name] == pytest.approx(neutral.get(name, 0.0), abs=1e-12), name


def test_columns_hold_what_their_names_say() -> None:
    bars = synthetic_bars("SYNTH", 900, seed=3)
    features = EXTENDED.transform(bars).iloc[-300:]
    close, high, low = (bars[name].to_numpy() for name in ("close", "high", "low"))
    last = slice(-300, None)
    upper, middle, lower = talib.BBANDS(close, timeperiod=20)
    expected = {
        "ret_4": np.log(close / np.roll(close, 4))[last],
        "sma_dist_50": (close / talib.SMA(close, 50) - 1.0)[last],
        "bb_position_20": ((close - middle) / (upper - middle))[last],
        "bb_width_20": ((upper - lower) / middle)[last],
        "stoch_k_14": (talib.STOCHF(high, low, close, 14, 1)[0] / 100.0)[last],
        "volume_z_20": _pandas_zscore(bars["volume"], 20)[last],
        "volatility_16": bars["close"].apply(np.log).diff().rolling(16).std(ddof=0).to_numpy()[last],
        "skew_96": bars["close"].apply(np.log).diff().rolling(96).skew().to_numpy()[last] * _bias(96),
        "candle_body": ((close - bars["open"]) / (high - low)).to_numpy()[last],
        "hour_sin": np.sin(2 * np.pi * (bars.index.hour + bars.index.minute / 60) / 24).to_numpy()[last],
        "weekday_cos": np.cos(2 * np.pi * bars.index.day_of_week / 7).to_numpy()[last],
    }
    for name, values in expected.items():
        agree(features[name].to_numpy(), values, relative=1e-6, absolute=1e-9)
    # on log prices and on prices these are nearly, not exactly, the same
    assert np.abs(features["rsi_14"] - (talib.RSI(close, 14) / 50 - 1)[last]).max() < 0.01
    assert np.abs(features["atr_14"] / (talib.NATR(high, low, close, 14) / 100)[last] - 1).max() < 0.05
    assert np.corrcoef(features["macd"], talib.PPO(close, 12, 26, 1)[last])[0, 1] > 0.999


def _pandas_zscore(values: pd.Series, window: int) -> np.ndarray:
    rolling = values.rolling(window)
    return ((values - rolling.mean()) / rolling.std(ddof=0)).to_numpy()


def _bias(n: int) -> float:
    return (n - 2) / np.sqrt(n * (n - 1))


def test_an_unstable_period_set_elsewhere_in_the_process_changes_no_feature() -> None:
    bars = synthetic_bars("SYNTH", 500, seed=2)
    before = EXTENDED.transform(bars)
    for name in ("EMA", "RSI", "ATR", "PLUS_DM", "MINUS_DM"):
        talib.set_unstable_period(name, 40)
    try:
        pd.testing.assert_frame_equal(EXTENDED.transform(bars), before, rtol=1e-3, atol=1e-5)
    finally:
        for name in ("EMA", "RSI", "ATR", "PLUS_DM", "MINUS_DM"):
            talib.set_unstable_period(name, 0)


def test_bars_that_the_pipeline_cannot_trust_are_refused() -> None:
    bars = synthetic_bars("SYNTH", 300, seed=1)
    with pytest.raises(BarsError, match="column volume is missing"):
        CORE.transform(bars.drop(columns="volume"))
    with pytest.raises(BarsError, match="UTC"):
        CORE.transform(bars.tz_localize(None))
    with pytest.raises(BarsError, match="strictly increasing"):
        CORE.transform(bars.iloc[::-1])
    broken = bars.copy()
    broken.iloc[7, 3] = 0.0
    with pytest.raises(BarsError, match=r"row 8 \(2024-01-01 01:45:00\+00:00\): close 0.0"):
        CORE.transform(broken)
    with pytest.raises(BarsError, match="200 bars are too few"):
        CORE.latest(bars.iloc[:200])


def test_what_is_no_frame_is_a_type_error_that_says_what_is_taken() -> None:
    for ask in (FeaturePipeline("core").latest, FeaturePipeline("core").transform):
        with pytest.raises(TypeError, match=r"bars are a str; give a DataFrame, as read_bars\(path"):
            ask("x.csv")  # type: ignore[operator]  # what a beginner gives


@pytest.mark.skipif(not REAL.is_dir(), reason="no real bars beside the repository")
@PIPELINES
@pytest.mark.parametrize("symbol", ["BTCUSDT", "XLMBTC"])
def test_on_real_bars_with_gaps_the_live_window_gives_the_offline_features(
    pipeline: FeaturePipeline, symbol: str
) -> None:
    bars = read_bars(REAL / f"{symbol}_15m.csv").frame
    whole = pipeline.transform(bars).to_numpy()
    assert np.isfinite(whole[pipeline.warmup_bars :]).all()
    cuts = np.random.default_rng(7).integers(pipeline.window_bars + 1, len(bars) + 1, 12)
    for cut in map(int, cuts):
        agree(pipeline.latest(bars.iloc[:cut]), whole[cut - 1], relative=1e-9, absolute=1e-12)
        agree(pipeline.transform(bars.iloc[:cut]).to_numpy()[-1], whole[cut - 1], relative=0, absolute=0)
