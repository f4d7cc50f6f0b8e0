"""The order of a table's entries: what has no value comes last either way, and equal ones are newest first.

So pages neither repeat nor lose a row, whatever they are sorted by.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from signalserve.common.timeframe import UnknownTimeframeError, timeframe_seconds
from signalserve.lab.plain import number
from signalserve.registry import ModelRegistryEntry, Status

STATUSES = tuple(str(status) for status in Status)


def ordered(
    entries: Iterable[ModelRegistryEntry],
    value: Callable[[ModelRegistryEntry], Any],
    *,
    descending: bool,
) -> list[ModelRegistryEntry]:
    """Entries sorted by a value, None for none."""
    newest = sorted(entries, key=lambda entry: entry.model_id)
    newest.sort(key=lambda entry: entry.created, reverse=True)
    valued = [(value(entry), entry) for entry in newest]
    known = [item for item in valued if item[0] is not None]
    known.sort(key=lambda item: item[0], reverse=descending)
    return [entry for _, entry in known] + [entry for found, entry in valued if found is None]


def _length_of(timeframe: str) -> float:
    try:
        return float(timeframe_seconds(timeframe))
    except UnknownTimeframeError:
        return math.inf


VALUES: Mapping[str, Callable[[ModelRegistryEntry], Any]] = {
    "created_at": lambda entry: entry.created if entry.is_dated else None,
    "model_id": lambda entry: entry.model_id,
    "symbol": lambda entry: entry.symbol,
    "timeframe": lambda entry: (_length_of(entry.timeframe), entry.timeframe),
    "model_type": lambda entry: entry.model_type.casefold(),
    "status": lambda entry: STATUSES.index(entry.status),
    "sharpe": lambda entry: number(entry.sharpe),
    "cum_return": lambda entry: number(entry.cum_return),
}
"""What each column of the index sorts by."""
