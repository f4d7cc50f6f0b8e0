"""One row of the registry: a model and its place in the lifecycle."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property

from signalserve.common.key import Key
from signalserve.common.moments import parse_moment

COLUMNS = (
    "model_id",
    "symbol",
    "timeframe",
    "model_type",
    "created_at",
    "path",
    "cum_return",
    "sharpe",
    "status",
)


class Status(StrEnum):
    """The five statuses that the index knows."""

    FAILED = "failed"
    SUCCESS = "success"
    CANDIDATE = "candidate"
    PRODUCTION = "production"
    ARCHIVED = "archived"


# what the csv module puts quotes around, and more
_QUOTED = re.compile(r"[\"'\s]")

_UNKNOWN = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class ModelRegistryEntry:
    """A row of `registry_index.csv`.

    `cum_return` is a fraction (0.12 is 12 %), `sharpe` is annualised; both are NaN where unknown.
    `created_at` and `path` are kept as the file has them.

    >>> entry = ModelRegistryEntry("BTCUSDT_15m_rf_1", "BTCUSDT", "15m", "rf", "2026-01-01T00:00:00Z")
    >>> entry.key
    Key(symbol='BTCUSDT', timeframe='15m')
    """

    model_id: str
    symbol: str
    timeframe: str
    model_type: str
    created_at: str
    path: str = ""
    cum_return: float = math.nan
    sharpe: float = math.nan
    status: str = Status.SUCCESS.value

    @cached_property
    def key(self) -> Key:
        """The key that the model competes for."""
        return Key(self.symbol, self.timeframe)

    @property
    def created(self) -> datetime:
        """`created_at` as an aware time; the earliest possible one where it can't be read."""
        try:
            return parse_moment(self.created_at.strip())
        except (ValueError, OverflowError):
            return _UNKNOWN

    @property
    def is_dated(self) -> bool:
        """Whether `created_at` can be read."""
        return self.created != _UNKNOWN

    @cached_property
    def line(self) -> str:
        """The row as the index file has it; kept, since every commit writes every row."""
        return csv_line(
            (
                self.model_id,
                self.symbol,
                self.timeframe,
                self.model_type,
                self.created_at,
                self.path,
                _number_text(self.cum_return),
                _number_text(self.sharpe),
                str(self.status),
            )
        )

    def with_status(self, status: str) -> ModelRegistryEntry:
        """The same model in another status."""
        return replace(self, status=str(status))

    def to_row(self) -> dict[str, str]:
        """The nine cells, as text."""
        row = {name: getattr(self, name) for name in COLUMNS}
        row["cum_return"] = _number_text(self.cum_return)
        row["sharpe"] = _number_text(self.sharpe)
        return {name: str(value) for name, value in row.items()}

    @classmethod
    def from_row(cls, row: Mapping[str, str]) -> ModelRegistryEntry:
        """Read the cells back.

        Raises:
            ValueError: a number can't be read or the status is unknown.
        """
        status = row.get("status", "").strip() or Status.SUCCESS.value
        if status not in set(Status):
            raise ValueError(f"status {status!r} is none of {', '.join(Status)}")
        return cls(
            model_id=row["model_id"],
            symbol=row["symbol"],
            timeframe=row["timeframe"],
            model_type=row["model_type"],
            created_at=row["created_at"],
            path=row["path"],
            cum_return=_number(row, "cum_return"),
            sharpe=_number(row, "sharpe"),
            status=status,
        )


def newest_first(entries: Iterable[ModelRegistryEntry]) -> list[ModelRegistryEntry]:
    """Sorted by `created_at`, and by the order in which they came where that is equal."""
    numbered = sorted(enumerate(entries), key=lambda item: (item[1].created, item[0]), reverse=True)
    return [entry for _, entry in numbered]


def csv_line(cells: Sequence[str]) -> str:
    """A line of the index file, its end included."""
    plain = ",".join(cells)
    if plain.count(",") == len(cells) - 1 and plain and not _QUOTED.search(plain):
        return plain + "\n"
    buffer = io.StringIO()
    # the csv module quotes a bare carriage return only where it is part of the line end
    every = any("\r" in cell for cell in cells)
    csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_ALL if every else csv.QUOTE_MINIMAL).writerow(
        cells
    )
    return buffer.getvalue()


def _number_text(value: float) -> str:
    return "" if math.isnan(value) else repr(float(value))


def _number(row: Mapping[str, str], name: str) -> float:
    text = row[name].strip()
    if text == "" or text.lower() in {"nan", "none", "null", "na"}:
        return math.nan
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{name} {text!r} is not a number") from None
