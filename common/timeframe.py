"""Timeframes, the length of a bar: `30s`, `15m`, `1h`, `1d`, `1w`. The one grammar of them."""

from __future__ import annotations

import re
from datetime import timedelta
from functools import lru_cache

_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 7 * 86_400}
_TEXT = re.compile(r"([1-9][0-9]{0,5})([smhdw])")
_LONGEST = 10_000 * _SECONDS["w"]  # what every library that counts nanoseconds can hold
_SECONDS_PER_YEAR = 365 * 86_400


class UnknownTimeframeError(ValueError):
    """The text is not a timeframe such as 15m, 1h or 1d."""


@lru_cache(maxsize=1024)
def timeframe_seconds(timeframe: str) -> int:
    """Length of one bar in seconds.

    Raises:
        UnknownTimeframeError: the text is not a number without a leading zero followed by s, m, h, d or w.

    >>> timeframe_seconds("15m"), timeframe_seconds("4h")
    (900, 14400)
    """
    match = _TEXT.fullmatch(timeframe)
    seconds = int(match[1]) * _SECONDS[match[2]] if match is not None else 0
    if not 0 < seconds <= _LONGEST:
        raise UnknownTimeframeError(
            f"{timeframe!r} is no timeframe; write a number and s, m, h, d or w, such as 15m, 1h or 1d"
        )
    return seconds


def timeframe_delta(timeframe: str) -> timedelta:
    """Length of one bar.

    Raises:
        UnknownTimeframeError: as for `timeframe_seconds`.
    """
    return timedelta(seconds=timeframe_seconds(timeframe))


def bars_per_year(timeframe: str) -> float:
    """Bars in 365 days of a market that never closes; `trading_year` has it for any market, from its bars.

    Raises:
        UnknownTimeframeError: as for `timeframe_seconds`.

    >>> bars_per_year("15m")
    35040.0
    """
    return _SECONDS_PER_YEAR / timeframe_seconds(timeframe)
