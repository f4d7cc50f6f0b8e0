"""Read OHLCV bars, strictly: what can't be trusted is an error, what can be mended is a counted warning.

A bar file has the columns timestamp, open, high, low, close, volume; `timestamp` is the bar's OPEN time.

| what is found                                             | what happens                         |
|-----------------------------------------------------------|--------------------------------------|
| missing or doubled column, text, empty cell, NaN, inf     | BarsError                            |
| price of zero or below, negative volume                   | BarsError                            |
| high below low, open or close outside [low, high]         | BarsError                            |
| unsorted, one timestamp with two different bars           | BarsError                            |
| timestamps with and without an offset in one file         | BarsError                            |
| bars closer together than the timeframe                   | BarsError                            |
| bars missing                                              | warning `gaps`, nothing is filled in |
| the same bar twice                                        | warning `duplicates`, one is kept    |
| zero volume                                               | warning `zero_volume`                |
| timestamps off the timeframe's grid                       | warning `off_grid`                   |
| no UTC offset anywhere (read as UTC); offsets but not UTC | warning `naive_time`; `offset_time`  |
| other columns; blank lines                                | warning `ignored_columns`; `blank_lines` |
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from signalserve.common.files import sha256_hex
from signalserve.common.timeframe import timeframe_delta
from signalserve.common.trading_year import bars_a_year
from signalserve.features.cells import fault, read_numbers, read_timestamps
from signalserve.features.errors import BarsError, NoBarFileError
from signalserve.features.table import NUMBER_COLUMNS, PRICE_COLUMNS, RawTable, read_table

__all__ = ["BarWarning", "Bars", "BarsError", "read_bars"]


@dataclass(frozen=True)
class BarWarning:
    """Something that was tolerated: its kind, how often, and where it first stands (a timestamp or a name).

    For `gaps` the count is of missing bars, not of holes.
    """

    kind: str
    count: int
    first: str

    def __str__(self) -> str:
        if self.kind == "gaps":
            return f"gaps: {self.count} bar{'s' if self.count > 1 else ''} missing (first: {self.first})"
        return f"{self.kind}: {self.count} (first: {self.first})"


@dataclass(frozen=True)
class Bars:
    """Checked bars.

    `frame`: float64 columns open, high, low, close, volume; a strictly increasing UTC DatetimeIndex named
    `timestamp` that holds each bar's OPEN time. `sha256` is the digest of the file as it was read.
    """

    path: Path
    timeframe: str
    frame: pd.DataFrame
    warnings: tuple[BarWarning, ...]
    sha256: str

    @cached_property
    def bars_per_year(self) -> float:
        """How many of them a year of their market has (`common.trading_year`); what annualises a Sharpe ratio."""
        index = pd.DatetimeIndex(self.frame.index)
        return bars_a_year(index.to_numpy(dtype="datetime64[s]").astype(np.int64), self.timeframe)


def read_bars(path: Path | str, *, timeframe: str = "15m") -> Bars:
    """Read a CSV or Parquet file of bars.

    Raises:
        BarsError: the file is missing or its content can't be trusted; the text says where and what to do.
        UnknownTimeframeError: `timeframe` is not one.
    """
    path = Path(path)
    step = pd.Timedelta(timeframe_delta(timeframe))
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise NoBarFileError(
            "no such file; name it with --ohlcv, or where such files are with data.ohlcv_path", path=path
        ) from None
    except IsADirectoryError:
        raise NoBarFileError("is a folder, no bar file", path=path) from None
    except OSError as error:
        raise BarsError(f"can't be read: {error.strerror or error}", path=path) from None
    table = read_table(path, content)
    index, time_kind = read_timestamps(table)
    values = read_numbers(table)
    _check_values(table, values)
    keep = _check_order(table, index, values)
    frame = pd.DataFrame({name: values[name][keep] for name in NUMBER_COLUMNS}, index=index[keep])
    _check_spacing(table, index, keep, step)
    warnings = (
        *_table_warnings(table, time_kind, index),
        *_dropped(index, keep),
        *_time_warnings(frame, step),
    )
    return Bars(path, timeframe, frame, warnings, sha256_hex(content))


def _check_values(table: RawTable, values: dict[str, NDArray[np.float64]]) -> None:
    """Refuse the first line whose numbers contradict themselves."""
    rules: list[tuple[NDArray[np.bool_], str]] = [
        (values[name] <= 0.0, f"{name} {{{name}!r}} is not above zero") for name in PRICE_COLUMNS
    ]
    rules += [
        (values["volume"] < 0.0, "volume {volume!r} is negative"),
        (values["high"] < values["low"], "high {high!r} is below low {low!r}"),
    ]
    for name in ("open", "close"):
        rules += [
            (values[name] > values["high"], f"{name} {{{name}!r}} is above high {{high!r}}"),
            (values[name] < values["low"], f"{name} {{{name}!r}} is below low {{low!r}}"),
        ]
    broken = [(int(np.flatnonzero(mask)[0]), text) for mask, text in rules if mask.any()]
    if broken:
        row, text = min(broken, key=lambda item: item[0])
        numbers = {name: float(column[row]) for name, column in values.items()}
        raise fault(table, row, text.format(**numbers) + "; correct the bar or remove the line")


def _check_order(
    table: RawTable, index: pd.DatetimeIndex, values: dict[str, NDArray[np.float64]]
) -> NDArray[np.bool_]:
    """Which rows to keep: all but repetitions of the bar before."""
    steps = np.diff(index.asi8)
    backward = np.flatnonzero(steps < 0)
    if backward.size:
        row = int(backward[0]) + 1
        raise fault(
            table,
            row,
            f"comes after {table.cells['timestamp'].iloc[row - 1]}, a later bar; sort the file by timestamp",
        )
    repeated = np.concatenate(([False], steps == 0))
    for row in map(int, np.flatnonzero(repeated)):
        differing = [name for name in NUMBER_COLUMNS if values[name][row] != values[name][row - 1]]
        if differing:
            raise fault(
                table,
                row,
                f"this timestamp is also on {table.unit} {table.lines[row - 1]} with another"
                f" {', '.join(differing)}; keep the right one",
            )
    return np.asarray(~repeated)


def _check_spacing(
    table: RawTable, index: pd.DatetimeIndex, keep: NDArray[np.bool_], step: pd.Timedelta
) -> None:
    rows = np.flatnonzero(keep)
    steps = np.diff(index.asi8[rows])
    close = np.flatnonzero(steps < step.value)
    if close.size:
        found = pd.Timedelta(int(steps[close[0]]))
        raise fault(
            table,
            int(rows[int(close[0]) + 1]),
            f"is {found} after the bar before, closer than one bar ({step}); is this the right timeframe?",
        )
    if steps.size and int(np.median(steps)) > step.value:
        found = pd.Timedelta(int(np.median(steps)))
        raise BarsError(
            f"bars are {found} apart, the timeframe says {step}; is this the right timeframe?",
            path=table.path,
        )


def _table_warnings(table: RawTable, time_kind: str, index: pd.DatetimeIndex) -> list[BarWarning]:
    found = []
    if time_kind != "utc":
        found.append(BarWarning(f"{time_kind}_time", len(index), str(index[0])))
    if table.ignored_columns:
        found.append(BarWarning("ignored_columns", len(table.ignored_columns), table.ignored_columns[0]))
    if table.blank_lines:
        found.append(BarWarning("blank_lines", len(table.blank_lines), f"line {table.blank_lines[0]}"))
    return found


def _dropped(index: pd.DatetimeIndex, keep: NDArray[np.bool_]) -> list[BarWarning]:
    rows = np.flatnonzero(~keep)
    return [BarWarning("duplicates", int(rows.size), str(index[int(rows[0])]))] if rows.size else []


def _time_warnings(frame: pd.DataFrame, step: pd.Timedelta) -> list[BarWarning]:
    found = []
    index = pd.DatetimeIndex(frame.index)
    opened = index.asi8
    missing = np.round(np.diff(opened) / step.value).astype(np.int64) - 1
    holes = np.flatnonzero(missing > 0)
    if holes.size:
        found.append(BarWarning("gaps", int(missing[holes].sum()), str(index[int(holes[0])] + step)))
    # weeks open on Mondays, while the epoch was a Thursday: there the first bar sets the grid
    anchor = int(opened[0]) if step > pd.Timedelta(days=1) else 0
    off = np.flatnonzero((opened - anchor) % step.value != 0)
    if off.size:
        found.append(BarWarning("off_grid", int(off.size), str(index[int(off[0])])))
    still = np.flatnonzero(frame["volume"].to_numpy() == 0.0)
    if still.size:
        found.append(BarWarning("zero_volume", int(still.size), str(index[int(still[0])])))
    return found
