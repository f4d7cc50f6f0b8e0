"""Tables for people, JSON for programs."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

console = Console(highlight=False)
notes = Console(stderr=True, highlight=False)

# ids must stay whole to be copied, so a table that is too wide runs over instead of being cut; no cell is wider
_WIDEST = 1_000_000


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(value, default=plain, ensure_ascii=False, indent=2))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> None:
    """A table; None and NaN are shown as a dash."""
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=True)
    for row in rows:
        table.add_row(*(escape(cell(value)) for value in row))
    wide = Console(highlight=False, width=_WIDEST)
    needed = Measurement.get(wide, wide.options, table).maximum
    Console(highlight=False, width=max(needed, 1)).print(table, crop=False)


def remark(head: str, text: str = "") -> None:
    """A line on stderr beside the answer: the head in yellow, both as they are and never wrapped."""
    notes.print(f"[yellow]{escape(head)}[/] {escape(text)}".rstrip(), soft_wrap=True)


def cell(value: object) -> str:
    """One value as a table shows it."""
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}Z"
    return str(value)


def plain(value: Any) -> Any:
    """What json does not know by itself."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
    if isinstance(value, _numpy_types()):
        return value.tolist()
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path | BaseException):
        return str(value)
    if isinstance(value, set | frozenset | tuple):
        return list(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _numpy_types() -> tuple[Any, ...]:
    """Arrays and their scalars, where numpy is loaded; where it isn't, no value is one."""
    numpy = sys.modules.get("numpy")
    return () if numpy is None else (numpy.ndarray, numpy.generic)
