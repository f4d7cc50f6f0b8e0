import threading
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalserve.features.bars import BarsError
from signalserve.features.synthetic import synthetic_bars
from signalserve.live.bars import Bar, CsvReplay
from signalserve.live.window import BarWindow


@pytest.fixture
def bar_file(tmp_path):
    path = tmp_path / "bars.csv"
    frame = synthetic_bars("SYNTH", 60, seed=3)
    frame.drop(frame.index[20:23]).to_csv(path)
    return path


def test_a_replay_gives_every_bar_of_the_file_and_tells_its_holes(bar_file):
    replay = CsvReplay(bar_file)
    bars = list(replay)
    assert len(bars) == len(replay) == 57
    assert bars[0].time == datetime(2024, 1, 1, tzinfo=UTC)
    assert bars[20].time - bars[19].time == timedelta(hours=1)
    assert [(warning.kind, warning.count) for warning in replay.warnings] == [("gaps", 3)]
    again = pd.read_csv(bar_file)
    assert [bar.close for bar in bars] == again["close"].tolist()
    assert replay.history(10) == []


def test_a_replay_goes_on_where_another_ended_and_knows_the_bars_before(bar_file):
    whole = list(CsvReplay(bar_file))
    rest = CsvReplay(bar_file, start=whole[29].time + timedelta(minutes=15))
    assert [*whole[:30], *rest] == whole
    assert rest.history(1000) == whole[:30]
    assert rest.history(4) == whole[26:30]
    last = CsvReplay(bar_file, last=5)
    assert list(last) == whole[-5:]
    assert last.history(2) == whole[-7:-5]
    assert list(CsvReplay(bar_file, last=500)) == whole
    assert list(CsvReplay(bar_file, start=whole[-1].time + timedelta(days=1))) == []


def test_stop_ends_a_replay_that_waits_for_its_next_bar(bar_file):
    replay = CsvReplay(bar_file, pace=3600.0)
    bars = iter(replay)
    next(bars)
    threading.Timer(0.01, replay.stop).start()
    assert next(bars, None) is None
    assert list(replay) == []


def test_a_replay_that_cannot_be_is_refused_at_once(bar_file, tmp_path):
    with pytest.raises(BarsError, match="no such file"):
        CsvReplay(tmp_path / "none.csv")
    with pytest.raises(ValueError, match="has no timezone"):
        CsvReplay(bar_file, start=datetime(2024, 1, 1))  # noqa: DTZ001  that is the point
    with pytest.raises(ValueError, match="last is 0"):
        CsvReplay(bar_file, last=0)
    with pytest.raises(ValueError, match="pace is nan"):
        CsvReplay(bar_file, pace=float("nan"))


@given(st.integers(1, 12), st.integers(0, 60))
def test_the_window_holds_the_last_bars_as_the_pipeline_takes_them(size, count):
    frame = synthetic_bars("SYNTH", count, seed=1)
    window = BarWindow(size)
    for time, row in zip(frame.index, frame.to_numpy(), strict=True):
        window.append(Bar(time.to_pydatetime(), *row.tolist()))
        assert len(window) <= size
    held = window.frame()
    assert len(window) == len(held) == min(size, count)
    assert list(held.index) == list(frame.index[-size:])
    assert str(held.index.tz) == "UTC"
    np.testing.assert_array_equal(held.to_numpy(), frame.to_numpy()[-size:])
    with pytest.raises(ValueError, match="size is 0"):
        BarWindow(0)
