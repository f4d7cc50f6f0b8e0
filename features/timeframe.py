"""Timeframes: `15m`, `1h`, `4h`, `1d`, `1w`."""

from __future__ import annotations

import re

import pandas as pd

from signalserve.features.errors import UnknownTimeframeError

_MINUTES = {"m": 1, "h": 60, "d": 24 * 60, "w": 7 * 24 * 60}
_TEXT = re.compile(r"([1-9][0-9]{0,3})([mhdw])")
_MINUTES_PER_YEAR = 365 * 24 * 60


def timeframe_minutes(timeframe: str) -> int:
    """Length of one bar in minutes.

    Raises:
        UnknownTimeframeError: the text is not a number followed by m, h, d or w.

    >>> timeframe_minutes("15m"), timeframe_minutes("4h")
    (15, 240)
    """
    match = _TEXT.fullmatch(timeframe)
    if match is None:
        raise UnknownTimeframeError(
            f"{timeframe!r} is no timeframe; write a number and m, h, d or w, such as 15m, 1h or 1d"
        )
    return int(match[1]) * _MINUTES[match[2]]


def timeframe_delta(timeframe: str) -> pd.Timedelta:
    """Length of one bar.

    Raises:
        UnknownTimeframeError: as for `timeframe_minutes`.
    """
    return pd.Timedelta(minutes=timeframe_minutes(timeframe))


def bars_per_year(timeframe: str) -> float:
    """Bars in 365 days of a market that never closes; the factor that annualises a Sharpe ratio.

    Raises:
        UnknownTimeframeError: as for `timeframe_minutes`.

    >>> bars_per_year("15m")
    35040.0
    """
    return _MINUTES_PER_YEAR / timeframe_minutes(timeframe)
