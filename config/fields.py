"""What the sections of the configuration are made of."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, StrictBool, TypeAdapter

from signalserve.common.moments import in_utc, parse_moment

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DURATION = re.compile(r"(?P<amount>\d+(\.\d+)?)\s*(?P<unit>[smhdw])")


class Section(BaseModel):
    """A part of the file: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _placeholders_are_known(value: str) -> str:
    try:
        value.format(symbol="S", timeframe="T")
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError("may hold {symbol} and {timeframe}, no other braces") from error
    return value


def _duration(value: Any) -> Any:
    if isinstance(value, str) and (match := _DURATION.fullmatch(value.strip())):
        return timedelta(**{_UNITS[match["unit"]]: float(match["amount"])})
    return value


def parse_duration(text: str) -> timedelta:
    """An amount of time from its text, as `Duration` takes it.

    Raises:
        ValueError: it is none.

    >>> parse_duration("36h")
    datetime.timedelta(days=1, seconds=43200)
    """
    return TypeAdapter(Duration).validate_python(text)


def _moment(value: Any) -> Any:
    if isinstance(value, str):
        return parse_moment(value.strip())
    if not isinstance(value, date):  # a datetime is one; 20240630 would be taken for seconds since 1970
        raise ValueError("is no time; write 2024-06-30, 2024-06-30T12:00 or 2024-06-30 12:00:00+00:00")
    return value


def _spelled_out(value: Any) -> Any:
    return {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value


def _above_zero(value: timedelta) -> timedelta:
    if value <= timedelta(0):
        raise ValueError("must be above zero")
    return value


PathTemplate = Annotated[str, AfterValidator(_placeholders_are_known)]
"""A path that may hold `{symbol}` and `{timeframe}`."""

Duration = Annotated[timedelta, BeforeValidator(_duration), AfterValidator(_above_zero)]
"""`90m`, `36h`, `14d`, `2w`: an amount and its unit, or ISO 8601; above zero."""

Explicit = Annotated[StrictBool, BeforeValidator(_spelled_out)]
"""`true` or `false`, and none of `1`, `yes` and `on`: for what nobody shall turn on by accident."""

UtcTime = Annotated[datetime, BeforeValidator(_moment), AfterValidator(in_utc)]
"""A time as ISO 8601 has it; without a zone it is UTC."""
