"""`registry_index.csv`: reading what people and other programs wrote, writing what pandas reads back.

The rules:
1. The file has the nine columns of `COLUMNS`, in that order; an old file may lack `status`.
2. A row that can't be read is reported and kept as it stands; it hides no other row. So a quote that was
   never closed costs its own line, not the rest of the file. Nor does it take a model away that was readable
   before: `Index.spoilt` tells whose it is.
3. Bytes that are not UTF-8 survive (surrogateescape), as do NaN, commas, quotes and line breaks.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from signalserve.common.key import MAX_LENGTH, name_problem
from signalserve.registry.entry import COLUMNS, ModelRegistryEntry, Status, csv_line

INDEX_FILE = "registry_index.csv"
# some 300,000 rows
LARGEST_INDEX = 64 * 1024 * 1024
_NO_STATUS = COLUMNS[:-1]
# a record with line breaks in it is looked for over so many lines before its first line counts as broken
_LONGEST_RECORD = 64
_CELL_ENDS = re.compile(r"[ \t\"',;|]")


@dataclass(frozen=True)
class UnreadableRow:
    """A row that was skipped: its line (from 1), its text as it stands, and why."""

    line: int
    text: str
    why: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.why}"

    def beginnings(self) -> Iterator[str]:
        """What may be its model_id: all that its beginning is up to the end of a cell."""
        start = self.text.lstrip(" \t\"'")[: MAX_LENGTH + 1]
        yield start
        for end in _CELL_ENDS.finditer(start):
            yield start[: end.start()]


@dataclass(frozen=True)
class Index:
    """The content of an index file: its entries in their order, and the rows that can't be read.

    `without_status` are models whose row says none, which reads as `success`: an old file, or half a row.
    """

    entries: Mapping[str, ModelRegistryEntry]
    unreadable: tuple[UnreadableRow, ...] = ()
    without_status: frozenset[str] = frozenset()

    @property
    def raw_rows(self) -> tuple[str, ...]:
        """The unreadable rows' text."""
        return tuple(row.text for row in self.unreadable)

    def spoilt(self, known: Container[str]) -> set[str]:
        """Which of the known models have a row that can't be read and no other."""
        return {
            name
            for row in self.unreadable
            for name in row.beginnings()
            if name in known and name not in self.entries
        }


def parse_index(content: bytes, known: Mapping[str, ModelRegistryEntry] = MappingProxyType({})) -> Index:
    """Read an index file's bytes. Never fails: what can't be read is in `unreadable`.

    `known` are entries by their lines, of which most rows are one and need not be read again.
    """
    lines = content.decode("utf-8-sig", errors="surrogateescape").splitlines(keepends=True)
    lines = _join_odd_line_ends(lines)
    entries: dict[str, ModelRegistryEntry] = {}
    unreadable: list[UnreadableRow] = []
    without_status: set[str] = set()
    header: tuple[str, ...] | None = None
    position = 0
    while position < len(lines):
        text, line = lines[position], position + 1
        if not text.strip():
            position += 1
            continue
        if header is None:
            header = _header(text)
            if header is None:
                header = COLUMNS  # a file without a header: its first line may be a row
            else:
                position += 1
                continue
        entry = known.get(text.rstrip("\r\n") + "\n") if header == COLUMNS else None
        used, why = 1, ""
        if entry is None:
            entry, used, why = _record(lines, position, header)
        position += used
        if entry is not None and entry.model_id in entries:
            text = "".join(lines[position - used : position])
            unreadable.append(UnreadableRow(line, text.rstrip("\r\n"), f"a second row of {entry.model_id!r}"))
        elif entry is None:
            unreadable.append(UnreadableRow(line, text.rstrip("\r\n"), why))
        else:
            entries[entry.model_id] = entry
            if _says_no_status("".join(lines[position - used : position]), header, entry):
                without_status.add(entry.model_id)
    return Index(entries, tuple(unreadable), frozenset(without_status))


def render_index(entries: Iterable[ModelRegistryEntry], raw_rows: Iterable[str] = ()) -> bytes:
    """The file's bytes: header, entries, then the unreadable rows as they stood."""
    lines = [csv_line(COLUMNS), *(entry.line for entry in entries), *(text + "\n" for text in raw_rows)]
    return "".join(lines).encode("utf-8", errors="surrogateescape")


def _join_odd_line_ends(lines: list[str]) -> list[str]:
    """Undo the cuts that str.splitlines makes at form feeds and the like."""
    joined: list[str] = []
    for line in lines:
        if joined and not joined[-1].endswith(("\n", "\r")):
            joined[-1] += line
        else:
            joined.append(line)
    return joined


def _says_no_status(text: str, header: tuple[str, ...], entry: ModelRegistryEntry) -> bool:
    if "status" not in header:  # a newer program may have appended rows with one
        return entry.status == Status.SUCCESS
    return header[-1] == "status" and text.rstrip("\r\n").endswith((",", ',""'))


def _header(text: str) -> tuple[str, ...] | None:
    names = tuple(cell.strip() for cell in next(csv.reader([text])))
    return names if "model_id" in names and set(_NO_STATUS) <= set(names) else None


def _record(
    lines: list[str], start: int, header: tuple[str, ...]
) -> tuple[ModelRegistryEntry | None, int, str]:
    """The entry that begins at a line, how many lines it took, and why there is none."""
    # it takes further lines only while a quote is open
    further = range(start, min(start + _LONGEST_RECORD, len(lines)))
    reader = csv.reader(map(lines.__getitem__, further), strict=True)
    try:
        cells = next(reader)
    except csv.Error as error:
        why = error if reader.line_num == 1 else "a quote is never closed"
        return None, 1, f"is no CSV: {why}"
    entry, why = _entry(cells, header)
    return entry, reader.line_num if entry else 1, why


def _entry(cells: list[str], header: tuple[str, ...]) -> tuple[ModelRegistryEntry | None, str]:
    # an old file to which a newer program appended rows with a status
    names = (*header, "status") if "status" not in header and len(cells) == len(header) + 1 else header
    if len(cells) != len(names):
        return None, f"has {len(cells)} cells, not {len(names)}"
    row = dict.fromkeys(COLUMNS, "") | {
        name: cell for name, cell in zip(names, cells, strict=True) if name in COLUMNS
    }
    row["status"] = row["status"] or Status.SUCCESS.value
    problem = name_problem(row["model_id"])
    if problem is not None:
        return None, f"model_id {row['model_id']!r} {problem}"
    if not row["symbol"] or not row["timeframe"]:
        return None, "symbol or timeframe is empty"
    try:
        return ModelRegistryEntry.from_row(row), ""
    except ValueError as error:
        return None, str(error)
