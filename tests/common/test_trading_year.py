"""A year has the bars that its market keeps open, whatever the file misses of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from signalserve.common.trading_year import bars_a_year

YEARS = pd.date_range("2023-01-02", "2024-12-31", freq="D")
NEW_YEAR = {(1, 1), (7, 4), (12, 25), (12, 26), (5, 1), (9, 1), (11, 23), (2, 19), (6, 19)}
WEEKDAYS = YEARS[(YEARS.day_of_week < 5) & [(day.month, day.day) not in NEW_YEAR for day in YEARS]]
ALWAYS = pd.date_range("2023-01-02", "2023-12-31 23:45", freq="15min", tz="UTC")


def in_seconds(index: pd.DatetimeIndex) -> np.ndarray:
    return index.to_numpy(dtype="datetime64[s]").astype(np.int64)


def session(
    days: pd.DatetimeIndex, zone: str, opens: str, closes: str, freq: str = "15min"
) -> pd.DatetimeIndex:
    """Bars of a market that is open between two times of its own zone, whose clock is changed twice a year."""
    bars = pd.DatetimeIndex(
        [
            bar
            for day in days
            for bar in pd.date_range(
                day + pd.Timedelta(opens), day + pd.Timedelta(closes), freq=freq, inclusive="left", tz=zone
            )
        ]
    )
    return bars.tz_convert("UTC")


def with_outages(index: pd.DatetimeIndex, count: int, longest: int) -> pd.DatetimeIndex:
    random = np.random.default_rng(3)
    keep = np.ones(len(index), dtype=bool)
    for start in random.integers(0, len(index), count):
        keep[start : start + random.integers(1, longest)] = False
    return index[keep]


NEW_YORK = session(WEEKDAYS, "America/New_York", "9h30min", "16h")


@pytest.mark.parametrize(
    ("index", "timeframe", "expected"),
    [
        pytest.param(ALWAYS, "15m", 35_040, id="never closes"),
        pytest.param(
            with_outages(ALWAYS, 60, 200), "15m", 35_040, id="never closes, with outages most weeks"
        ),
        pytest.param(with_outages(ALWAYS[:3_000], 4, 300), "15m", 35_040, id="the same in a month"),
        pytest.param(ALWAYS[:900], "15m", 35_040, id="too short to tell"),
        pytest.param(ALWAYS[:0], "15m", 35_040, id="no bars"),
        pytest.param(ALWAYS[::20], "5h", 365 * 24 / 5, id="bars that fit into no day"),
        pytest.param(NEW_YORK, "15m", 26 * len(WEEKDAYS) / 2, id="6.5 hours on weekdays"),
        pytest.param(NEW_YORK[: 26 * 60], "15m", 26 * 5 * 365 / 7, id="the same in a quarter: no holidays"),
        pytest.param(
            session(WEEKDAYS, "Australia/Sydney", "10h", "16h"),
            "15m",
            24 * len(WEEKDAYS) / 2,
            id="over midnight",
        ),
        pytest.param(WEEKDAYS.tz_localize("UTC"), "1d", len(WEEKDAYS) / 2, id="daily bars of weekdays"),
        pytest.param(YEARS.tz_localize("UTC"), "1d", 365, id="daily bars of all days"),
        pytest.param(YEARS[::7].tz_localize("UTC"), "1w", 365 / 7, id="weekly bars"),
    ],
)
def test_a_year_has_the_bars_of_its_markets_hours(
    index: pd.DatetimeIndex, timeframe: str, expected: float
) -> None:
    assert bars_a_year(in_seconds(index), timeframe) == pytest.approx(expected, rel=0.01)


def test_outages_of_a_market_that_never_closes_change_nothing_at_all() -> None:
    assert bars_a_year(in_seconds(with_outages(ALWAYS, 60, 200)), "15m") == 35_040.0
