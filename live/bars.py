"""Where bars come from: closed bars, one after the other.

Rules that every source keeps, and on which the engine relies:

1. A bar is given once, after its close, in strictly increasing order of its open time.
2. A bar that the market or the file lacks is not made up. The next bar simply comes later; the engine counts
   the hole. The rows stay consecutive for the features, because training treats the rows of a file the same
   way: a warm-up that started anew after a hole would make the live score differ from the offline one.
3. `history` gives the bars before the first one of the iteration, so that a run that starts in the middle has
   the features of a run from the start.
"""

from __future__ import annotations

import queue
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

import pandas as pd

from signalserve.common.moments import in_utc
from signalserve.features.bars import BarWarning, read_bars


@dataclass(frozen=True, slots=True)
class Bar:
    """One closed bar; `time` is its open time in UTC, as everywhere."""

    time: datetime
    open: float
    high: float
    low: float
    close: float
    volume: float


class BarSource(Protocol):
    """What the engine needs of a source."""

    def history(self, limit: int) -> list[Bar]:
        """Give up to `limit` bars just before the first one of the iteration, oldest first."""

    def __iter__(self) -> Iterator[Bar]:
        """Give the bars as they close; ends where there are no more, or after `stop`."""

    def stop(self) -> None:
        """End the iteration, also while it waits for the next bar. May be called from a signal handler."""


class CsvReplay:
    """A bar file (CSV or Parquet), replayed bar by bar.

    Args:
        path: the file; it is read and checked at once.
        timeframe: the length of its bars.
        start: give only bars that open at this time or later; earlier ones are `history`. None: the first.
        last: give only the last so many bars (from `start` on); earlier ones are `history`. None: all.
        pace: seconds to wait before each bar but the first; 0 replays as fast as the engine goes.

    A replay goes on where another one ended with `start=` the end of that one's last bar. What the reader
    tolerated, holes among it, is in `warnings`.

    Raises:
        BarsError: the file can't be used; the text says where and what to do.
        UnknownTimeframeError: `timeframe` is not one.
        ValueError: `start` has no timezone, `last` is below 1, or `pace` is negative.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        timeframe: str = "15m",
        start: datetime | None = None,
        last: int | None = None,
        pace: float = 0.0,
    ) -> None:
        if start is not None and start.utcoffset() is None:
            raise ValueError(f"start {start} has no timezone; give it in UTC, e.g. 2024-01-01T00:00+00:00")
        if last is not None and last < 1:
            raise ValueError(f"last is {last}; give 1 or more")
        if not 0.0 <= pace < float("inf"):
            raise ValueError(f"pace is {pace}; give 0 or more seconds")
        bars = read_bars(path, timeframe=timeframe)
        self.warnings: tuple[BarWarning, ...] = bars.warnings
        self._frame = bars.frame
        self._first = 0 if start is None else int(bars.frame.index.searchsorted(pd.Timestamp(start)))
        if last is not None:
            self._first = max(self._first, len(bars.frame) - last)
        self._pace = pace
        # a SimpleQueue, because its put may be called from a signal handler; an Event's set may deadlock there
        self._stops: queue.SimpleQueue[None] = queue.SimpleQueue()

    def __len__(self) -> int:
        """How many bars an iteration gives."""
        return len(self._frame) - self._first

    def history(self, limit: int) -> list[Bar]:
        """Give up to `limit` bars just before the first one that is replayed."""
        return list(_bars(self._frame.iloc[max(0, self._first - limit) : self._first]))

    def __iter__(self) -> Iterator[Bar]:
        for place, bar in enumerate(_bars(self._frame.iloc[self._first :])):
            if self._stopped(self._pace if place else 0.0):
                return
            yield bar

    def stop(self) -> None:
        """End the replay before its next bar."""
        self._stops.put(None)

    def _stopped(self, patience: float) -> bool:
        try:
            if patience:
                self._stops.get(timeout=patience)
            else:
                self._stops.get_nowait()
        except queue.Empty:
            return False
        self._stops.put(None)  # stays stopped
        return True


def _bars(frame: pd.DataFrame) -> Iterator[Bar]:
    times = pd.DatetimeIndex(frame.index).to_pydatetime()
    columns = (frame[name].tolist() for name in ("open", "high", "low", "close", "volume"))
    for time, *numbers in zip(times, *columns, strict=True):
        yield Bar(in_utc(time), *numbers)
