"""Moments in UTC: a time without a zone is UTC, everywhere."""

from __future__ import annotations

from datetime import UTC, datetime


def utc_now() -> datetime:
    """The present moment."""
    return datetime.now(UTC)


def in_utc(moment: datetime) -> datetime:
    """The same moment in UTC; a time without a zone is one. One at the calendar's very ends stays in its own zone.

    >>> in_utc(datetime(2026, 1, 1)).isoformat()
    '2026-01-01T00:00:00+00:00'
    """
    if moment.tzinfo is None:
        return moment.replace(tzinfo=UTC)
    try:
        return moment.astimezone(UTC)
    except OverflowError:  # 9999-12-31 in New York has no day in UTC
        return moment


def parse_moment(text: str) -> datetime:
    """A moment from ISO 8601 text, in UTC.

    Raises:
        TypeError, ValueError: it is none.

    >>> parse_moment("2026-01-01T02:00:00+02:00").isoformat()
    '2026-01-01T00:00:00+00:00'
    """
    return in_utc(datetime.fromisoformat(text))


def second_text(moment: datetime) -> str:
    """ISO 8601 to the second, in UTC: `2026-01-01T00:00:00+00:00`, as the project's files have it."""
    return in_utc(moment).isoformat(timespec="seconds")
