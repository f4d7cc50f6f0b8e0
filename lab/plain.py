"""From what files hold to values that every page and every JSON document can show.

1. A number is finite or None: JSON has no NaN and no infinity.
2. A moment is an aware datetime in UTC or None, whatever a file calls it; as JSON it is ISO 8601 and ends in Z.
3. Text that is no UTF-8 (lone surrogates of a hand-edited index) loses what can't be encoded, never the answer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Any

from signalserve.common.moments import in_utc, parse_moment


def number(value: object) -> float | None:
    """A finite number; None for what is none, booleans included."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # an integer of hundreds of digits is no float
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def number_of_text(text: object) -> float | None:
    """The finite number that a cell of a CSV file holds; None for an empty or another one."""
    try:
        return number(float(str(text)))
    except ValueError:
        return None


def moment(value: object) -> datetime | None:
    """The moment that an ISO 8601 text names, in UTC; None for what is none."""
    try:
        found = in_utc(value) if isinstance(value, datetime) else parse_moment(str(value).strip())
    except (ValueError, OverflowError):
        return None
    # the calendar's very ends have no day in UTC
    return found if found.utcoffset() == timedelta(0) else None


def moment_text(value: datetime) -> str:
    """ISO 8601 in UTC: `2026-01-01T00:00:00Z`."""
    return in_utc(value).isoformat().replace("+00:00", "Z")


def text_of(value: object) -> str:
    """A text that can be encoded; empty for None."""
    return "" if value is None else str(value).encode("utf-8", "replace").decode()


def mapping(value: object) -> Mapping[str, Any]:
    """The value where it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def plain(value: Any) -> Any:
    """Plain JSON values: frozen values as objects, moments as text, what is not finite as null."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, str):
        return text_of(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime):
        return moment_text(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {text_of(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return text_of(value if isinstance(value, Path) else str(value))


def json_bytes(value: Any) -> bytes:
    """One JSON document, UTF-8, without NaN."""
    text = json.dumps(plain(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8")
