"""Synthetic bars for demonstrations and tests. They are made up: no market ever traded them.

The process: the log return of a bar is a drift that depends on a hidden regime (up, flat, down; each lasting
some hundred bars), plus an echo of the last return, plus noise whose size breathes with the hour. Momentum
columns can see the regime, so a model that learns finds an edge that no real market is known to give.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd

from signalserve.common.timeframe import timeframe_delta

_REGIME_BARS = 120.0
_DRIFT = np.array([-0.0007, 0.0, 0.0007])
_ECHO = 0.08
_NOISE = 0.0022
_START_PRICE = 100.0


def synthetic_bars(
    symbol: str,
    n: int,
    *,
    seed: int,
    timeframe: str = "15m",
    start: str | pd.Timestamp = "2024-01-01",
    start_price: float = _START_PRICE,
) -> pd.DataFrame:
    """Make `n` bars that look like `Bars.frame`; `frame.attrs["synthetic"]` says what they are.

    The same symbol, seed and arguments give the same bars, and the first m of n bars equal a run with m.

    Args:
        symbol: two symbols of one seed get different bars.
        n: how many bars, 0 or more.
        seed: 0 or more.
        timeframe: the distance between bars.
        start: open time of the first bar; UTC where it has no zone.
        start_price: the first open.

    Raises:
        UnknownTimeframeError: `timeframe` is not one.
        ValueError: `n` or `seed` is negative.
    """
    if n < 0:
        raise ValueError(f"n is {n}; it must be 0 or more")
    step = timeframe_delta(timeframe)
    first = pd.Timestamp(start)
    first = first.tz_localize("UTC") if first.tzinfo is None else first.tz_convert("UTC")
    index = pd.date_range(first, periods=n, freq=step, name="timestamp", unit="ns")

    # one draw of a fixed width for each bar, so that a longer run begins with the shorter one
    key = int.from_bytes(hashlib.sha256(symbol.encode()).digest()[:8], "big")
    random = np.random.default_rng([seed, key])
    uniform = random.random((n, 4))
    random = np.random.default_rng([seed, key, 1])
    normal = random.standard_normal((n, 3))

    regime = 1
    previous = 0.0
    log_return = np.empty(n)
    breath = 1.0 + 0.35 * np.sin(index.hour.to_numpy() * (2.0 * np.pi / 24.0))
    for bar in range(n):
        if uniform[bar, 0] < 1.0 / _REGIME_BARS:
            regime = int(uniform[bar, 1] * 3.0)
        previous = float(_DRIFT[regime] + _ECHO * previous + _NOISE * breath[bar] * normal[bar, 0])
        log_return[bar] = previous

    log_close = np.log(start_price) + np.cumsum(log_return)
    close = np.exp(log_close)
    opened = np.concatenate(([start_price], close[:-1]))[:n]
    # the wicks are a share of the noise beyond the body
    reach = _NOISE * breath
    high = np.maximum(opened, close) * (1.0 + reach * uniform[:, 2])
    low = np.minimum(opened, close) * (1.0 - reach * uniform[:, 3])
    volume = 1000.0 * breath * np.exp(0.4 * normal[:, 1] + 60.0 * np.abs(log_return))
    frame = pd.DataFrame(
        {"open": opened, "high": high, "low": low, "close": close, "volume": volume}, index=index
    )
    frame.attrs["synthetic"] = f"synthetic bars of {symbol}, seed {seed}: made up, not market data"
    return frame
