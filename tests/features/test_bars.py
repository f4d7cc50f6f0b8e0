"""The strict reader, through `read_bars` and files."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from signalserve.common.timeframe import UnknownTimeframeError
from signalserve.features.bars import BarsError, BarWarning, read_bars
from signalserve.features.synthetic import synthetic_bars

REAL = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "ohlcv"

HEADER = "timestamp,open,high,low,close,volume"
GOOD = [
    "2024-01-01 00:00:00+00:00,10,12,9,11,5",
    "2024-01-01 00:15:00+00:00,11,13,10,12,6",
    "2024-01-01 00:30:00+00:00,12,14,11,13,7",
]


def write(folder: Path, *lines: str, name: str = "bars.csv") -> Path:
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_good_bars_come_back_as_utc_float64_without_warnings(tmp_path: Path) -> None:
    bars = read_bars(write(tmp_path, HEADER, *GOOD))
    assert bars.warnings == ()
    assert list(bars.frame.columns) == ["open", "high", "low", "close", "volume"]
    assert set(bars.frame.dtypes) == {np.dtype("float64")}
    assert isinstance(bars.frame.index, pd.DatetimeIndex)
    assert bars.frame.index.name == "timestamp"
    assert str(bars.frame.index.tz) == "UTC"
    assert bars.frame.loc[pd.Timestamp("2024-01-01 00:15", tz="UTC"), "high"] == 13.0
    assert re.fullmatch("[0-9a-f]{64}", bars.sha256)


@pytest.mark.parametrize(
    ("bad_line", "says"),
    [
        ("2024-01-01 00:30:00+00:00,12,14,11,abc,7", "close is text: 'abc'"),
        ("2024-01-01 00:30:00+00:00,12,14,11,,7", "close is empty"),
        ("2024-01-01 00:30:00+00:00,12,14,11,13", "volume is empty"),
        ("2024-01-01 00:30:00+00:00,12,14,11,nan,7", "close is NaN"),
        ("2024-01-01 00:30:00+00:00,12,inf,11,13,7", "high is infinite"),
        ("2024-01-01 00:30:00+00:00,-12,14,11,13,7", "open -12.0 is not above zero"),
        ("2024-01-01 00:30:00+00:00,12,14,0,13,7", "low 0.0 is not above zero"),
        ("2024-01-01 00:30:00+00:00,12,14,11,13,-7", "volume -7.0 is negative"),
        ("2024-01-01 00:30:00+00:00,12,10,11,13,7", "high 10.0 is below low 11.0"),
        ("2024-01-01 00:30:00+00:00,15,14,11,13,7", "open 15.0 is above high 14.0"),
        ("2024-01-01 00:30:00+00:00,12,14,11,10,7", "close 10.0 is below low 11.0"),
        ("2023-12-31 00:30:00+00:00,12,14,11,13,7", "sort the file by timestamp"),
        ("2024-01-01 00:15:00+00:00,11,13,10,12.5,6", "also on line 3 with another close"),
        ("2024-01-01 00:30:00,12,14,11,13,7", "with and without a UTC offset are mixed"),
        ("2024-01-01 00:17:00+00:00,12,14,11,13,7", "closer than one bar"),
        ("1704069000000,12,14,11,13,7", "'1704069000000' is not one"),
        ("2024-13-01 00:30:00+00:00,12,14,11,13,7", "no date and time"),
        (",12,14,11,13,7", "this is empty"),
    ],
)
def test_a_bar_that_cannot_be_trusted_is_an_error_with_its_line(
    tmp_path: Path, bad_line: str, says: str
) -> None:
    path = write(tmp_path, HEADER, *GOOD[:2], bad_line)
    with pytest.raises(BarsError) as caught:
        read_bars(path)
    assert caught.value.line == 4
    assert says in str(caught.value)
    assert "line 4" in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_lines_are_counted_as_an_editor_counts_them_over_blank_lines(tmp_path: Path) -> None:
    path = write(tmp_path, HEADER, GOOD[0], "", GOOD[1], "2024-01-01 00:30:00+00:00,x,14,11,13,7")
    with pytest.raises(BarsError, match=r"line 5 \(2024-01-01 00:30:00\+00:00\): open is text"):
        read_bars(path)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["timestamp,open,high,low,close", "2024-01-01,1,1,1,1"], "column volume is missing"),
        (["timestamp,open,high,low,close,close,volume", "2024-01-01,1,1,1,1,1,1"], "more than once"),
        ([HEADER], "no bars"),
        ([HEADER, "", ""], "no bars"),
        ([HEADER, GOOD[0], GOOD[1] + ",99,98"], "line 3"),
    ],
)
def test_a_file_with_the_wrong_shape_is_refused(tmp_path: Path, lines: list[str], says: str) -> None:
    with pytest.raises(BarsError, match=says):
        read_bars(write(tmp_path, *lines))


def test_files_that_are_no_bars_at_all_are_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_bytes(b"")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x01")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 nothing PAR1")
    (tmp_path / "bars.xlsx").write_bytes(b"PK")
    for name, says in {
        "empty.csv": "is empty",
        "binary.csv": "not UTF-8",
        "broken.parquet": "can't be read as Parquet",
        "bars.xlsx": "unknown kind of file",
        "absent.csv": "no such file",
    }.items():
        with pytest.raises(BarsError, match=says) as caught:
            read_bars(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(BarsError, match="is a folder, no bar file"):
        read_bars(tmp_path)


def test_gaps_are_counted_in_missing_bars_and_nothing_is_filled_in(tmp_path: Path) -> None:
    later = "2024-01-01 01:30:00+00:00,12,14,11,13,7"
    bars = read_bars(write(tmp_path, HEADER, *GOOD, later))
    assert bars.warnings == (BarWarning("gaps", 3, "2024-01-01 00:45:00+00:00"),)
    assert len(bars.frame) == 4


def test_identical_repetitions_are_dropped_and_counted(tmp_path: Path) -> None:
    bars = read_bars(write(tmp_path, HEADER, GOOD[0], GOOD[0], GOOD[0], *GOOD[1:]))
    assert bars.warnings == (BarWarning("duplicates", 2, "2024-01-01 00:00:00+00:00"),)
    assert len(bars.frame) == 3


def test_times_without_an_offset_are_read_as_utc_and_said_so(tmp_path: Path) -> None:
    bars = read_bars(write(tmp_path, HEADER, *(line.replace("+00:00", "") for line in GOOD)))
    assert [warning.kind for warning in bars.warnings] == ["naive_time"]
    assert bars.frame.index[0] == pd.Timestamp("2024-01-01", tz="UTC")


def test_times_of_another_zone_are_moved_to_utc_and_said_so(tmp_path: Path) -> None:
    bars = read_bars(write(tmp_path, HEADER, *(line.replace("+00:00", "+02:00") for line in GOOD)))
    assert [warning.kind for warning in bars.warnings] == ["offset_time"]
    assert bars.frame.index[0] == pd.Timestamp("2023-12-31 22:00", tz="UTC")


def test_what_is_tolerated_is_counted_one_by_one(tmp_path: Path) -> None:
    lines = [
        HEADER + ",trades",
        "2024-01-01 00:01:00Z,10,12,9,11,0,3",
        "2024-01-01 00:16:00Z,11,13,10,12,6,3",
        "",
        "2024-01-01 00:31:00Z,12,14,11,13,7,3",
    ]
    kinds = {warning.kind: warning.count for warning in read_bars(write(tmp_path, *lines)).warnings}
    assert kinds == {"ignored_columns": 1, "blank_lines": 1, "off_grid": 3, "zero_volume": 1}


def test_the_wrong_timeframe_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path, HEADER, *GOOD)
    with pytest.raises(BarsError, match="right timeframe"):
        read_bars(path, timeframe="1h")
    with pytest.raises(BarsError, match=r"apart, the timeframe says 0 days 00:05:00"):
        read_bars(path, timeframe="5m")
    with pytest.raises(UnknownTimeframeError, match="15m, 1h or 1d"):
        read_bars(path, timeframe="quarter")


def test_a_byte_order_mark_and_upper_case_names_are_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "bars.csv"
    path.write_text("\ufeff" + "\r\n".join([HEADER.upper(), *GOOD]), encoding="utf-8")
    assert len(read_bars(path).frame) == 3


@pytest.mark.parametrize("as_index", [True, False])
def test_csv_and_parquet_give_the_same_bars_to_the_last_bit(tmp_path: Path, as_index: bool) -> None:
    frame = synthetic_bars("SYNTH", 300, seed=1, start_price=3e-5)
    frame.to_csv(tmp_path / "bars.csv")
    (frame if as_index else frame.reset_index()).to_parquet(tmp_path / "bars.parquet")
    from_csv, from_parquet = read_bars(tmp_path / "bars.csv"), read_bars(tmp_path / "bars.parquet")
    pd.testing.assert_frame_equal(from_csv.frame, from_parquet.frame, check_exact=True)
    pd.testing.assert_frame_equal(from_csv.frame, frame, check_exact=True, check_freq=False)
    assert from_csv.warnings == from_parquet.warnings == ()


def test_text_in_a_parquet_column_is_named_by_row(tmp_path: Path) -> None:
    frame = synthetic_bars("SYNTH", 5, seed=1).astype({"close": str})
    frame.iloc[2, 3] = "n/a"
    frame.to_parquet(tmp_path / "bars.parquet")
    with pytest.raises(BarsError, match=r"row 3 .*close is text: 'n/a'"):
        read_bars(tmp_path / "bars.parquet")


@pytest.mark.skipif(not REAL.is_dir(), reason="no real bars beside the repository")
@pytest.mark.parametrize("path", sorted(REAL.glob("*_15m.csv")), ids=lambda path: path.stem)
def test_real_files_are_read_whole_and_their_gaps_are_counted(path: Path) -> None:
    bars = read_bars(path)
    plain = pd.read_csv(path, index_col="timestamp", parse_dates=True)
    assert len(bars.frame) == len(plain)
    np.testing.assert_allclose(bars.frame.to_numpy(), plain.to_numpy(), rtol=1e-15)
    steps = pd.Series(plain.index).diff().dropna() // pd.Timedelta("15min") - 1
    gaps = [warning.count for warning in bars.warnings if warning.kind == "gaps"]
    assert sum(gaps) == int(steps.sum())
