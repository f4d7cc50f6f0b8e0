"""Splits that go forward in time.

    first ........ train ........ | embargo: horizon bars | ........ test ........ n
                                  ^ their labels would read closes of the test span

A training bar's label reads `horizon` bars ahead; leaving out that many bars before the test span keeps every
close of the test span out of the fit. The test span is seen by no fit, no fold and no choice.

Folds lie inside the training part. Their test spans tile its end; each is tested by a fit on earlier bars:

    expanding  |train|gap|test|         rolling  |train|gap|test|
               |train.....|gap|test|                  |train|gap|test|

The gap is the horizon and `embargo_bars`. All of it counts bars, labelled or not. Beyond the gap, `purge`
drops every bar whose label has read a price of the test span, however far its label reached.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import TimeSeriesSplit

from signalserve.training.errors import TrainingError

Positions = NDArray[np.intp]


@dataclass(frozen=True)
class Split:
    """Two ranges of bar positions: `train` ends at least `embargo` bars before `test` starts."""

    train: range
    test: range
    embargo: int


@dataclass(frozen=True)
class Spans:
    """First and last open times of the bars to train and to test on, both included; None leaves it open."""

    train_start: pd.Timestamp | None = None
    train_end: pd.Timestamp | None = None
    test_start: pd.Timestamp | None = None
    test_end: pd.Timestamp | None = None


def chronological_split(n_bars: int, *, first: int, test_fraction: float, embargo: int) -> Split:
    """Split bars `first` to `n_bars` into an earlier and a later part.

    Args:
        n_bars: all bars, the warm-up included.
        first: the first bar that has features.
        test_fraction: share of the usable bars that goes to the end, in (0, 1).
        embargo: bars left out between the parts; the label's horizon, and what is kept apart beyond it.

    Raises:
        TrainingError: there are too few bars for two parts.

    >>> chronological_split(110, first=10, test_fraction=0.25, embargo=4)
    Split(train=range(10, 81), test=range(85, 110), embargo=4)
    """
    usable = n_bars - first
    test_bars = round(usable * test_fraction)
    boundary = n_bars - test_bars
    split = Split(range(first, boundary - embargo), range(boundary, n_bars), embargo)
    if usable <= 0 or len(split.train) < 1 or len(split.test) < 2:
        raise TrainingError(
            f"{n_bars} bars are too few: {first} warm the features up, {embargo} are the embargo, and the rest"
            " must leave something to fit and to test; give a longer file"
        )
    return split


def split_by_spans(
    index: pd.DatetimeIndex, spans: Spans, *, first: int, test_fraction: float, embargo: int, apart: int = 0
) -> Split:
    """Split bars at given times; what is left open is as wide as it can be.

    The fit reads no price after `train_end`: the labels of its last `embargo` bars would, so they are left out.
    Between what it reads and the test span lie `apart` bars more.
    With neither `train_end` nor `test_start`, the last `test_fraction` of the bars between the other two is the
    test span.

    Raises:
        TrainingError: a span holds too few bars; it says which, and what the file holds.
    """
    start = max(first, _position(index, spans.train_start, "left", 0))
    stop = _position(index, spans.test_end, "right", len(index))
    if spans.train_end is None and spans.test_start is None:
        train_stop = test_start = stop - round(max(0, stop - start) * test_fraction)
    else:
        train_stop = _position(index, spans.train_end, "right", len(index))
        test_start = _position(index, spans.test_start, "left", train_stop)
    train_stop = min(train_stop, test_start - apart)
    test_start = max(first, test_start)
    split = Split(range(start, train_stop - embargo), range(test_start, stop), embargo)
    for name, span, least in (("training", split.train, 1), ("test", split.test, 2)):
        if len(span) < least:
            raise TrainingError(
                f"the {name} span holds {max(0, len(span))} usable bars and needs {least}; the file has bars"
                f" from {index[0].isoformat()} to {index[-1].isoformat()}, of which the first {first} warm the"
                f" features up and {embargo} before the end of the training span are the embargo"
            )
    return split


class FoldRule(Protocol):
    """How folds are cut: the `ml.walk_forward` section of the configuration, or what has attributes of these names.

    `mode` is expanding or rolling; `train_bars` is the length of a rolling window, None as long as the first can be.
    """

    @property
    def mode(self) -> str: ...  # noqa: D102 - the class says what they are
    @property
    def folds(self) -> int: ...  # noqa: D102
    @property
    def train_bars(self) -> int | None: ...  # noqa: D102
    @property
    def embargo_bars(self) -> int: ...  # noqa: D102


def walk_forward_folds(span: range, settings: FoldRule, *, horizon: int) -> tuple[tuple[range, range], ...]:
    """(train, test) ranges of positions of each fold, in order of time; the tests tile the end of `span`.

    Rolling with no `train_bars`: every window is as long as the first one can be. With `train_bars` the test
    spans are as long as leaves the first window whole.

    Raises:
        TrainingError: the span is too short for so many folds.
    """
    folds, gap = settings.folds, horizon + settings.embargo_bars
    test_bars = len(span) // (folds + 1)
    window: int | None = None
    if settings.mode == "rolling":
        window = settings.train_bars
        if window is None:
            window = len(span) - folds * test_bars - gap
        test_bars = min(test_bars, (len(span) - gap - window) // folds)
    if test_bars < 1 or len(span) - folds * test_bars - gap < 1:
        raise TrainingError(
            f"{len(span)} training bars are too few for {folds} walk-forward folds"
            + (f" of {settings.train_bars} bars" if settings.train_bars else "")
            + f" with {gap} bars between fit and test; give more bars or fewer folds (ml.walk_forward)"
        )
    splitter = TimeSeriesSplit(n_splits=folds, gap=gap, max_train_size=window, test_size=test_bars)
    return tuple(
        (_as_range(train, span.start), _as_range(test, span.start))
        for train, test in splitter.split(np.empty((len(span), 1)))
    )


def final_window(span: range, settings: FoldRule, *, horizon: int) -> range:
    """The bars that the final model is fitted on: the whole span, or the last window of a rolling one."""
    if settings.mode == "expanding":
        return span
    if settings.train_bars is not None:
        return span[-settings.train_bars :]
    first_window, _ = walk_forward_folds(span, settings, horizon=horizon)[0]
    return span[-len(first_window) :]


def purge(rows: Positions, end: Positions, before: int) -> Positions:
    """Those of `rows` whose labels have read no price of bar `before` or a later one (`Labels.end`)."""
    return rows[end[rows] < before]


def _position(
    index: pd.DatetimeIndex, moment: pd.Timestamp | None, side: Literal["left", "right"], otherwise: int
) -> int:
    return otherwise if moment is None else int(index.searchsorted(moment, side=side))


def _as_range(positions: Positions, offset: int) -> range:
    return range(offset + int(positions[0]), offset + int(positions[-1]) + 1)
