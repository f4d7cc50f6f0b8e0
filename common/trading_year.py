"""How many bars a year has: the factor that annualises a Sharpe ratio, from the hours that a market keeps.

The clock's count (`timeframe.bars_per_year`) is right for a market that never closes and overstates a Sharpe ratio by
a factor of 2.3 for one that is open 6.5 hours on 252 days. So the bars themselves are asked:

1. They are cut into whole weeks of seven UTC days; the first and the last day, which may be cut off, count nowhere.
2. The upper median of the weeks' bars is the market's week. Holes in fewer than half of the weeks, such as an outage
   or a holiday, and a clock that is changed in between, move it not at all.
3. A market never closes where nearly every moment of the week has had a bar once, and its week has most of the clock's
   bars: what is missing there are outages, however many, and the clock's count is right.
4. In one that closes, a file of a year or more says how many holidays there are: there its week is the mean of those
   that have bars, holes and all.
5. A year is 365 / 7 weeks, and never has more bars than the clock's.

Limits. Below two whole weeks, and for bars longer than a day, it is the clock's count. A market that closes gets its
holidays only from a year of bars; with less, 252 days count as 261 and a Sharpe ratio is 1.7 % too high. In a year of
such a market an outage within a week counts as closed. Hours that changed for good are those of most weeks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from signalserve.common.timeframe import bars_per_year, timeframe_seconds

_DAY = 86_400
_WEEKS_A_YEAR = 365 / 7
# a market never closes: the share of the week's moments that had a bar once, and of the clock's bars in its week
_EVERY_MOMENT, _MOST_BARS = 0.98, 0.75


def bars_a_year(opened: NDArray[np.int64], timeframe: str) -> float:
    """Bars in a year of the market whose bars these are.

    Args:
        opened: open times in seconds since the epoch, UTC, ascending, int64 [n].
        timeframe: length of a bar.

    Raises:
        UnknownTimeframeError: as for `timeframe_seconds`.

    >>> hourly = np.arange(0, 30 * 24) * 3600
    >>> bars_a_year(hourly, "1h")
    8760.0
    >>> weekdays_9_to_5 = hourly[(hourly // 86400 % 7 < 5) & (hourly // 3600 % 24 >= 9) & (hourly // 3600 % 24 < 17)]
    >>> round(bars_a_year(weekdays_9_to_5, "1h"))  # 40 a week
    2086
    """
    by_the_clock = bars_per_year(timeframe)
    step = timeframe_seconds(timeframe)
    weeks = _whole_weeks(opened // _DAY) if step <= _DAY else np.empty(0)
    if weeks.size < 2:
        return by_the_clock
    full = 7 * _DAY / step
    typical = float(np.quantile(weeks, 0.5, method="higher"))
    moments = np.unique(opened % (7 * _DAY) // step).size
    if moments >= _EVERY_MOMENT * full and typical >= _MOST_BARS * full:
        return by_the_clock
    if weeks.size >= int(_WEEKS_A_YEAR):
        typical = float(weeks[weeks > 0].mean())
    return min(typical * _WEEKS_A_YEAR, by_the_clock) or by_the_clock


def _whole_weeks(days: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bars of each whole week, from the day of each bar; int64 [weeks]."""
    if days.size == 0:
        return np.empty(0, dtype=np.int64)
    first = int(days[0]) + 1
    count = max(0, int(days[-1]) - first) // 7
    inside = days[(days >= first) & (days < first + 7 * count)]
    return np.bincount((inside - first) // 7, minlength=count)
