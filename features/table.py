"""The raw table of a bar file: cells as they are written, each with its line.

Reading keeps the text, so that a fault can be named by line and in the author's own spelling.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from pandas.errors import EmptyDataError, ParserError

from signalserve.features.errors import BarsError

PRICE_COLUMNS = ("open", "high", "low", "close")
NUMBER_COLUMNS = (*PRICE_COLUMNS, "volume")
COLUMNS = ("timestamp", *NUMBER_COLUMNS)


@dataclass(frozen=True)
class RawTable:
    """Cells of the six columns; `lines[i]` is where row i stands in the file.

    `unit` is what a line is called: "line" in a CSV file, "row" elsewhere.
    """

    path: Path
    cells: pd.DataFrame
    lines: list[int]
    unit: str
    ignored_columns: tuple[str, ...]
    blank_lines: tuple[int, ...]


def read_table(path: Path, content: bytes) -> RawTable:
    """Take a CSV or Parquet file apart.

    Raises:
        BarsError: unknown kind of file, unparsable, without bars, or a column is missing or doubled.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] == [".csv"]:
        return _read_csv(path, content)
    if suffixes[-1:] in ([".parquet"], [".pq"]):
        return _read_parquet(path, content)
    raise BarsError("unknown kind of file; give .csv or .parquet", path=path)


def _read_csv(path: Path, content: bytes) -> RawTable:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BarsError(f"is not UTF-8 text ({error.reason} at byte {error.start})", path=path) from None
    try:
        # the header is read as a row, because pandas would silently rename a doubled column
        rows = pd.read_csv(
            io.StringIO(text), header=None, dtype=str, keep_default_na=False, skip_blank_lines=False
        )
    except EmptyDataError:
        raise BarsError("is empty; a bar file starts with a header line", path=path) from None
    except ParserError as error:
        raise BarsError(f"can't be parsed as CSV: {' '.join(str(error).split())}", path=path) from None
    # a row that is shorter than the header is padded with NaN, even in a text column
    rows = rows.fillna("")
    header = [str(name) for name in rows.iloc[0]]
    body = rows.iloc[1:]
    blank = (body == "").all(axis=1).to_numpy()
    lines = [int(i) + 1 for i in body.index]
    body.columns = pd.Index(header)
    kept, ignored = _pick(body, path)
    return RawTable(
        path=path,
        cells=_some(kept.loc[~blank], path),
        lines=[line for line, is_blank in zip(lines, blank, strict=True) if not is_blank],
        unit="line",
        ignored_columns=ignored,
        # the text's last line break makes no line of its own
        blank_lines=tuple(line for line, is_blank in zip(lines, blank, strict=True) if is_blank),
    )


def _read_parquet(path: Path, content: bytes) -> RawTable:
    try:
        frame = pd.read_parquet(io.BytesIO(content))
    except (OSError, ValueError, ImportError) as error:  # pyarrow's errors are among these
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BarsError(f"can't be read as Parquet: {first}", path=path) from None
    if not isinstance(frame.index, pd.RangeIndex):
        frame = frame.reset_index()
    kept, ignored = _pick(frame, path)
    cells = _some(kept, path)
    return RawTable(
        path=path,
        cells=cells,
        lines=list(range(1, len(cells) + 1)),
        unit="row",
        ignored_columns=ignored,
        blank_lines=(),
    )


def _pick(frame: pd.DataFrame, path: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    names = [str(name).strip().lower() for name in frame.columns]
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise BarsError(
            f"column {', '.join(missing)} is missing; the header must name {','.join(COLUMNS)}"
            f" and it names {','.join(names)}",
            path=path,
            line=1,
        )
    doubled = [name for name in COLUMNS if names.count(name) > 1]
    if doubled:
        raise BarsError(f"column {', '.join(doubled)} stands more than once; keep one", path=path, line=1)
    picked = frame.iloc[:, [names.index(name) for name in COLUMNS]].copy()
    picked.columns = pd.Index(COLUMNS)
    return picked, tuple(name for name in names if name not in COLUMNS)


def _some(cells: pd.DataFrame, path: Path) -> pd.DataFrame:
    if cells.empty:
        raise BarsError("holds a header and no bars", path=path)
    return cells.reset_index(drop=True)
