"""The feature columns, in named groups: functions of a `BarArrays` that return name -> float64 [n].

Rules that every column keeps:

1. It reads its own bar and earlier ones, none later.
2. It is free of scale: multiplying all prices, or all volumes, by a constant changes nothing.
3. It is finite once its window is full. A flat window, a bar with high == low, a window without volume have
   a value by definition: 0, or 0.5 for the shares on [0, 1] (`stoch_*`, `donchian_*`, `up_volume_*`).
4. Recursive indicators (TA-Lib's RSI, ATR, EMA, MACD, directional movement) run on log prices. They forget
   where history started at a known rate, see `features.pipeline`; on log prices they are in units of return,
   and no release's threshold for "zero" (it was an absolute 1e-14) can blind them to a coin worth 0.00003.
5. Means and deviations come from `features.rolling`: TA-Lib's SMA, STDDEV and BBANDS are running sums, which
   remember a spike for ever in their rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import talib

from signalserve.features.rolling import (
    FLAT,
    Array,
    lag,
    ratio,
    rolling_autocorrelation,
    rolling_mean,
    rolling_skew,
    rolling_std,
    rolling_sum,
    rolling_zscore,
)

Columns = dict[str, Array]


@dataclass(frozen=True)
class BarArrays:
    """Bars as arrays, float64 [n] each; the log prices are taken once for all groups."""

    open: Array
    high: Array
    low: Array
    close: Array
    volume: Array
    log_high: Array
    log_low: Array
    log_close: Array
    minute_of_day: Array
    day_of_week: Array

    @classmethod
    def from_frame(cls, frame: pd.DataFrame) -> BarArrays:
        """Take a frame as `Bars.frame` is apart; prices must be above zero."""
        columns = {
            name: np.ascontiguousarray(frame[name].to_numpy(dtype=np.float64))
            for name in ("open", "high", "low", "close", "volume")
        }
        index = pd.DatetimeIndex(frame.index)
        return cls(
            **columns,
            log_high=np.log(columns["high"]),
            log_low=np.log(columns["low"]),
            log_close=np.log(columns["close"]),
            minute_of_day=index.hour.to_numpy(dtype=np.float64) * 60.0
            + index.minute.to_numpy(dtype=np.float64),
            day_of_week=index.day_of_week.to_numpy(dtype=np.float64),
        )

    def log_return(self, bars: int) -> Array:
        """ln(close / close `bars` bars ago)."""
        return self.log_close - lag(self.log_close, bars)


def returns(bars: BarArrays, *, horizons: tuple[int, ...]) -> Columns:
    """`ret_{h}`: log return over h bars."""
    return {f"ret_{horizon}": bars.log_return(horizon) for horizon in horizons}


def lagged_returns(bars: BarArrays, *, lags: tuple[int, ...]) -> Columns:
    """`ret_1_lag_{k}`: the one-bar log return k bars ago."""
    return {f"ret_1_lag_{bars_ago}": lag(bars.log_return(1), bars_ago) for bars_ago in lags}


def average_distances(bars: BarArrays, *, simple: tuple[int, ...], exponential: tuple[int, ...]) -> Columns:
    """`sma_dist_{w}`: close / SMA - 1. `ema_dist_{w}`: ln(close) - EMA of ln(close)."""
    columns = {f"sma_dist_{window}": bars.close / rolling_mean(bars.close, window) - 1.0 for window in simple}
    for window in exponential:
        columns[f"ema_dist_{window}"] = bars.log_close - talib.EMA(bars.log_close, timeperiod=window)
    return columns


def average_ratios(bars: BarArrays, *, pairs: tuple[tuple[int, int], ...]) -> Columns:
    """`sma_ratio_{fast}_{slow}`: SMA(fast) / SMA(slow) - 1."""
    return {
        f"sma_ratio_{fast}_{slow}": rolling_mean(bars.close, fast) / rolling_mean(bars.close, slow) - 1.0
        for fast, slow in pairs
    }


def relative_strength(bars: BarArrays, *, periods: tuple[int, ...]) -> Columns:
    """`rsi_{p}`: Wilder's RSI of log prices on [-1, 1] (TA-Lib's 0..100, centred); 0 where nothing moved."""
    columns = {}
    for period in periods:
        strength = talib.RSI(bars.log_close, timeperiod=period) / 50.0 - 1.0
        columns[f"rsi_{period}"] = _unless_flat(bars.close, bars.close, period + 1, strength)
    return columns


def macd(bars: BarArrays) -> Columns:
    """MACD(12, 26, 9) of log prices: line, signal and histogram, in log-price units."""
    line, signal, histogram = talib.MACD(bars.log_close, fastperiod=12, slowperiod=26, signalperiod=9)
    return {"macd": line, "macd_signal": signal, "macd_hist": histogram}


def true_range(bars: BarArrays, *, period: int = 14) -> Columns:
    """`atr_{p}`: Wilder's ATR of log prices. `range_to_atr_{p}`: this bar's true range over it."""
    average = talib.ATR(bars.log_high, bars.log_low, bars.log_close, timeperiod=period)
    this_bar = talib.TRANGE(bars.log_high, bars.log_low, bars.log_close)
    return {
        f"atr_{period}": average,
        f"range_to_atr_{period}": ratio(this_bar, average, valid=average > FLAT),
    }


def bollinger(bars: BarArrays, *, windows: tuple[int, ...]) -> Columns:
    """`bb_position_{w}`: (close - SMA) / (2 deviations). `bb_width_{w}`: 4 deviations / SMA."""
    columns = {}
    for window in windows:
        columns[f"bb_position_{window}"] = rolling_zscore(bars.close, window) / 2.0
        columns[f"bb_width_{window}"] = (
            4.0 * rolling_std(bars.close, window) / rolling_mean(bars.close, window)
        )
    return columns


def stochastic(bars: BarArrays, *, periods: tuple[int, ...], smooth: int = 3) -> Columns:
    """`stoch_k_{p}`: place of the close in the range of p bars, [0, 1]. `stoch_d_{p}`: its mean of 3 bars."""
    columns = {}
    for period in periods:
        fast, _ = talib.STOCHF(bars.high, bars.low, bars.close, fastk_period=period, fastd_period=1)
        fast = _unless_flat(bars.high, bars.low, period, fast / 100.0, otherwise=0.5)
        columns[f"stoch_k_{period}"] = fast
        columns[f"stoch_d_{period}"] = rolling_mean(fast, smooth)
    return columns


def channel(bars: BarArrays, *, windows: tuple[int, ...]) -> Columns:
    """`high_dist_{w}`, `low_dist_{w}`: close against the edges. `donchian_{w}`: place between, [0, 1]."""
    columns = {}
    for window in windows:
        top, bottom = talib.MAX(bars.high, timeperiod=window), talib.MIN(bars.low, timeperiod=window)
        columns[f"high_dist_{window}"] = bars.close / top - 1.0
        columns[f"low_dist_{window}"] = bars.close / bottom - 1.0
        columns[f"donchian_{window}"] = ratio(
            bars.close - bottom, top - bottom, valid=top - bottom > FLAT * top, otherwise=0.5
        )
    return columns


def trend_strength(bars: BarArrays, *, period: int = 14, aroon: int = 25, efficiency: int = 24) -> Columns:
    """Direction of the movement.

    `dm_balance_{p}`: (+DM - -DM) / (+DM + -DM) of log prices. `aroon_{p}`: Aroon oscillator.
    `efficiency_{p}`: net move over the sum of moves. All on [-1, 1].
    """
    up = talib.PLUS_DM(bars.log_high, bars.log_low, timeperiod=period)
    down = talib.MINUS_DM(bars.log_high, bars.log_low, timeperiod=period)
    path = rolling_sum(np.abs(bars.log_return(1)), efficiency)
    return {
        f"dm_balance_{period}": ratio(up - down, up + down, valid=up + down > FLAT),
        f"aroon_{aroon}": _unless_flat(
            bars.high, bars.low, aroon + 1, talib.AROONOSC(bars.high, bars.low, timeperiod=aroon) / 100.0
        ),
        f"efficiency_{efficiency}": ratio(bars.log_return(efficiency), path, valid=path > FLAT),
    }


def volatility(bars: BarArrays, *, windows: tuple[int, ...], pair: tuple[int, int]) -> Columns:
    """`volatility_{w}`: deviation of one-bar log returns. `volatility_ratio_{a}_{b}`: short / long - 1."""
    one = bars.log_return(1)
    columns = {f"volatility_{window}": rolling_std(one, window) for window in windows}
    short, long = (rolling_std(one, window) for window in pair)
    columns[f"volatility_ratio_{pair[0]}_{pair[1]}"] = ratio(short - long, long, valid=long > FLAT)
    return columns


def return_shape(bars: BarArrays, *, window: int = 96) -> Columns:
    """`skew_{w}`, `autocorr_{w}` of one-bar log returns; `parkinson_{w}`: volatility from highs and lows."""
    one = bars.log_return(1)
    return {
        f"skew_{window}": rolling_skew(one, window),
        f"autocorr_{window}": rolling_autocorrelation(one, window),
        f"parkinson_{window}": np.sqrt(
            rolling_mean((bars.log_high - bars.log_low) ** 2, window) / (4.0 * np.log(2.0))
        ),
    }


def volume(bars: BarArrays, *, windows: tuple[int, ...], ratio_window: int) -> Columns:
    """`volume_z_{w}`: z-score in w bars. `volume_ratio_{w}`: volume / mean of w bars, minus 1."""
    columns = {f"volume_z_{window}": rolling_zscore(bars.volume, window) for window in windows}
    mean = rolling_mean(bars.volume, ratio_window)
    columns[f"volume_ratio_{ratio_window}"] = ratio(bars.volume - mean, mean, valid=mean > 0.0)
    return columns


def volume_flow(bars: BarArrays, *, window: int = 24, trend: tuple[int, int] = (12, 96)) -> Columns:
    """Where volume went.

    `up_volume_{w}`: share of the volume that traded in rising bars, [0, 1].
    `volume_trend_{a}_{b}`: mean volume of a bars over that of b, minus 1.
    """
    one = bars.log_return(1)
    # the first bar has no return; a window that holds it is in the warm-up
    rising = np.where(np.isnan(one), np.nan, (one > FLAT) + 0.5 * (np.abs(one) <= FLAT))
    traded = rolling_sum(bars.volume, window)
    short, long = (rolling_mean(bars.volume, bars_) for bars_ in trend)
    return {
        f"up_volume_{window}": ratio(
            rolling_sum(rising * bars.volume, window), traded, valid=traded > 0.0, otherwise=0.5
        ),
        f"volume_trend_{trend[0]}_{trend[1]}": ratio(short - long, long, valid=long > 0.0),
    }


def candle(bars: BarArrays) -> Columns:
    """Shape of the bar: signed body and wicks as shares of the range, the range itself as ln(high / low)."""
    spread = bars.high - bars.low
    moved = spread > FLAT * bars.high
    body_top, body_bottom = np.maximum(bars.open, bars.close), np.minimum(bars.open, bars.close)
    return {
        "candle_body": ratio(bars.close - bars.open, spread, valid=moved),
        "candle_upper_wick": ratio(bars.high - body_top, spread, valid=moved),
        "candle_lower_wick": ratio(body_bottom - bars.low, spread, valid=moved),
        "candle_range": bars.log_high - bars.log_low,
    }


def calendar(bars: BarArrays) -> Columns:
    """Time of day and day of week of the bar's open (UTC), on circles."""
    hour = bars.minute_of_day * (2.0 * np.pi / (24.0 * 60.0))
    weekday = bars.day_of_week * (2.0 * np.pi / 7.0)
    return {
        "hour_sin": np.sin(hour),
        "hour_cos": np.cos(hour),
        "weekday_sin": np.sin(weekday),
        "weekday_cos": np.cos(weekday),
    }


def _unless_flat(high: Array, low: Array, window: int, values: Array, *, otherwise: float = 0.0) -> Array:
    """`values`, but `otherwise` where the window's range is no movement."""
    top, bottom = talib.MAX(high, timeperiod=window), talib.MIN(low, timeperiod=window)
    flat = top - bottom <= FLAT * top
    return np.where(flat, np.where(np.isnan(values), np.nan, otherwise), values)
