"""One grammar of timeframes, for bars, training and the server alike."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalserve.common.key import Key
from signalserve.common.moments import in_utc, parse_moment, second_text
from signalserve.common.timeframe import (
    UnknownTimeframeError,
    bars_per_year,
    timeframe_delta,
    timeframe_seconds,
)
from signalserve.features.synthetic import synthetic_bars


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15m", 900), ("4h", 14_400), ("1d", 86_400), ("1w", 604_800), ("86400s", 86_400)],
)
def test_a_length_is_a_number_and_its_unit(text: str, seconds: int) -> None:
    assert timeframe_seconds(text) == seconds
    assert timeframe_delta(text) == timedelta(seconds=seconds)
    assert bars_per_year(text) == 365 * 86_400 / seconds


@pytest.mark.parametrize(
    "text",
    ["", "m", "0m", "15", "15M", "1.5h", "-1h", " 15m", "15 m", "1000000m", "99999w", "015m", "\uff115m"],
)
def test_anything_else_is_refused_by_name(text: str) -> None:
    with pytest.raises(UnknownTimeframeError, match="such as 15m, 1h or 1d"):
        timeframe_seconds(text)


def test_bars_of_seconds_can_be_made_and_read() -> None:
    frame = synthetic_bars("S", 5, seed=1, timeframe="90s")
    assert frame.index[1] - frame.index[0] == timedelta(seconds=90)


@given(st.text(min_size=1), st.text(alphabet=st.characters(exclude_characters="/"), min_size=1))
def test_a_key_is_read_back_from_its_text(symbol: str, timeframe: str) -> None:
    assert Key.parse(str(Key(symbol, timeframe))) == Key(symbol, timeframe)


@pytest.mark.parametrize("text", ["", "BTCUSDT", "/15m", "BTCUSDT/"])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="SYMBOL/TIMEFRAME"):
        Key.parse(text)


@given(
    st.datetimes(
        min_value=datetime(2, 1, 1),  # noqa: DTZ001 - hypothesis wants its bounds without a zone
        max_value=datetime(9998, 1, 1),  # noqa: DTZ001 - likewise
        timezones=st.one_of(st.none(), st.timezones()),
    )
)
def test_a_moment_is_the_same_moment_in_utc_and_none_without_a_zone_is_utc(moment: datetime) -> None:
    utc = in_utc(moment)
    assert utc.tzinfo is UTC
    # by their Unix times: an hour that a zone's clocks skip or repeat equals none of another zone
    assert utc.timestamp() == (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    assert parse_moment(second_text(moment)) == utc.replace(microsecond=0)


@pytest.mark.parametrize("text", ["9999-12-31T23:59:59-05:00", "0001-01-01T00:00:00+05:00"])
def test_a_moment_at_the_ends_of_the_calendar_is_still_one(text: str) -> None:
    assert parse_moment(text).isoformat() == text
    assert parse_moment("0001-01-02") < parse_moment("9999-12-31T23:59:59-05:00")
