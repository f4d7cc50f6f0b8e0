"""Which bars a model was trained on, so that nobody judges it on those of another market.

Each week's rows have a digest, by their Monday (UTC), over open times and prices as numbers: another spelling of the
file is the same bars. A week counts where the file begins before it, so a file that was cut at its start still tells.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from signalserve.common.files import sha256_hex
from signalserve.judging import TrainedOn

_WEEK = pd.Timedelta(days=7)


def week_digests(frame: pd.DataFrame, first: pd.Timestamp, last: pd.Timestamp) -> dict[str, str]:
    """The first 16 digits of each week's sha256, by the week's Monday; rows from `first` to `last`, both included."""
    part = frame.loc[first:last]
    index = pd.DatetimeIndex(part.index)
    mondays = index.normalize() - pd.to_timedelta(index.day_of_week, unit="D")
    times, values = index.as_unit("ns").asi8, np.ascontiguousarray(part.to_numpy(dtype=np.float64))
    starts = [number for number, monday in enumerate(mondays) if not number or monday != mondays[number - 1]]
    spans = zip(starts, [*starts[1:], len(index)], strict=True) if starts else ()
    return {
        f"{mondays[start]:%Y-%m-%d}": sha256_hex(times[start:stop].tobytes() + values[start:stop].tobytes())[
            :16
        ]
        for start, stop in spans
    }


def compare_weeks(
    known: Mapping[str, str], frame: pd.DataFrame, first: pd.Timestamp, last: pd.Timestamp
) -> TrainedOn:
    """The training's weeks beside those of a bar file."""
    found, begins = week_digests(frame, first, last), frame.index[0]
    whole = [week for week in sorted(known) if max(pd.Timestamp(week, tz="UTC"), first) >= begins]
    differ = [week for week in whole if found.get(week) != known[week]]
    return TrainedOn(len(whole), len(differ), differ[0] if differ else "")
