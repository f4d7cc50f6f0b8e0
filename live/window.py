"""The last bars, no more than features need."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd

from signalserve.live.bars import Bar

_COLUMNS = ["open", "high", "low", "close", "volume"]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class BarWindow:
    """Up to `size` bars in a buffer of twice that, so that an append copies nothing most of the time."""

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"size is {size}; give 1 or more")
        self.size = size
        self._times = np.empty(2 * size, dtype=np.int64)
        self._values = np.empty((2 * size, len(_COLUMNS)), dtype=np.float64)
        self._end = 0

    def __len__(self) -> int:
        return min(self._end, self.size)

    def append(self, bar: Bar) -> None:
        """Add the newest bar; the oldest goes where there are `size` already."""
        if self._end == len(self._times):
            keep = self.size - 1
            # the halves do not overlap: size - 1 rows go from the upper half to the front
            self._times[:keep] = self._times[self._end - keep :]
            self._values[:keep] = self._values[self._end - keep :]
            self._end = keep
        self._times[self._end] = (bar.time - _EPOCH) // _MICROSECOND
        self._values[self._end] = (bar.open, bar.high, bar.low, bar.close, bar.volume)
        self._end += 1

    def frame(self) -> pd.DataFrame:
        """Copy the bars as the feature pipeline takes them: float64 columns, UTC DatetimeIndex `timestamp`."""
        held = slice(self._end - len(self), self._end)
        index = pd.DatetimeIndex(self._times[held].astype("M8[us]"), tz="UTC", name="timestamp")
        return pd.DataFrame(self._values[held].copy(), index=index, columns=_COLUMNS)
