"""From cells to values: UTC timestamps and float64 numbers, or the exact cell that is at fault."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from signalserve.features.errors import BarsError
from signalserve.features.table import NUMBER_COLUMNS, RawTable

_TIMESTAMP = re.compile(
    r"\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?\s?(Z|[+-]\d{2}(?::?\d{2})?)?)?"
)
_UTC_SPELLINGS = frozenset({"Z", "+00:00", "+0000", "+00", "-00:00"})


def fault(table: RawTable, row: int, problem: str) -> BarsError:
    """The error for row `row` (0-based) of the table, with its line and timestamp."""
    return BarsError(
        problem,
        path=table.path,
        line=table.lines[row],
        timestamp=str(table.cells["timestamp"].iloc[row]),
        unit=table.unit,
    )


def read_timestamps(table: RawTable) -> tuple[pd.DatetimeIndex, str]:
    """Bar open times in UTC, and how the file writes them: "utc", "offset" or "naive".

    Raises:
        BarsError: a cell is no timestamp, or some have a UTC offset and others have none.
    """
    column = table.cells["timestamp"]
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        kind = "utc" if str(column.dtype.tz) in {"UTC", "utc", "+00:00"} else "offset"
        index = pd.DatetimeIndex(column).tz_convert("UTC")
    elif pd.api.types.is_datetime64_any_dtype(column.dtype):
        kind = "naive"
        index = pd.DatetimeIndex(column).tz_localize("UTC")
    else:
        index, kind = _parse_timestamps(table, [str(cell).strip() for cell in column])
    absent = np.flatnonzero(np.asarray(index.isna()))
    if absent.size:
        raise fault(table, int(absent[0]), "the timestamp is no date and time; correct it or remove the line")
    return index.as_unit("ns").rename("timestamp"), kind


def _parse_timestamps(table: RawTable, texts: list[str]) -> tuple[pd.DatetimeIndex, str]:
    zones: list[str | None] = []
    for row, text in enumerate(texts):
        match = _TIMESTAMP.fullmatch(text)
        if match is None:
            what = "is empty" if not text else f"{text!r} is not one"
            raise fault(
                table,
                row,
                f"a timestamp is written 2024-01-31 13:45:00+00:00 (the bar's open time), this {what}",
            )
        zones.append(match[1])
    naive = [zone is None for zone in zones]
    if any(naive) and not all(naive):
        row = naive.index(not naive[0])
        raise fault(
            table,
            row,
            "timestamps with and without a UTC offset are mixed; write all of them with +00:00"
            f" (the first bar has {'none' if naive[0] else 'one'})",
        )
    index = pd.DatetimeIndex(pd.to_datetime(texts, format="ISO8601", utc=True, errors="coerce"))
    if all(naive):
        return index, "naive"
    return index, "utc" if all(zone in _UTC_SPELLINGS for zone in zones) else "offset"


def read_numbers(table: RawTable) -> dict[str, NDArray[np.float64]]:
    """The number columns as float64, every one finite.

    Raises:
        BarsError: a cell is text, empty, NaN or infinite.
    """
    return {name: _numbers(table, name) for name in NUMBER_COLUMNS}


def _numbers(table: RawTable, name: str) -> NDArray[np.float64]:
    cells: list[Any] = table.cells[name].to_list()
    try:
        # float() rounds correctly to the nearest double, which pandas' own parser does not promise
        values = np.array([float(cell) for cell in cells], dtype=np.float64)
    except (TypeError, ValueError):
        row = next(i for i, cell in enumerate(cells) if not _is_number(cell))
        cell = cells[row]
        what = "is empty" if cell is None or not str(cell).strip() else f"is text: {str(cell)[:40]!r}"
        raise fault(table, row, f"{name} {what}; write a number or remove the line") from None
    odd = np.flatnonzero(~np.isfinite(values))
    if odd.size:
        row = int(odd[0])
        what = "NaN" if math.isnan(values[row]) else "infinite"
        raise fault(table, row, f"{name} is {what}; write a number or remove the line")
    return values


def _is_number(cell: object) -> bool:
    try:
        float(cell)  # type: ignore[arg-type]  # anything else is what the except clause is for
    except (TypeError, ValueError):
        return False
    return True
