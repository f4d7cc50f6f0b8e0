"""Moments in UTC: a time without a zone is UTC, everywhere."""

from __future__ import annotations

from datetime import UTC, datetime


def utc_now() -> datetime:
    """The present moment."""
    return datetime.now(UTC)


def in_utc(moment: datetime) -> datetime:
    """The same moment in UTC; a time without a zone is one.

    >>> in_utc(datetime(2026, 1, 1)).isoformat()
    '2026-01-01T00:00:00+00:00'
    """
    return moment.astimezone(UTC) if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


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
