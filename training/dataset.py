"""Bars as a model sees them: features, labels, and which bars are for the fit.

Features are computed on every bar of the file before any is cut away, so the warm-up comes out of the bars
before a span where there are some.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from signalserve.features.bars import Bars, read_bars
from signalserve.features.pipeline import FeaturePipeline
from signalserve.training.errors import TrainingError
from signalserve.training.labels import Labels, make_labels
from signalserve.training.leakage import check_no_lookahead, random_cuts
from signalserve.training.progress import Report, quiet
from signalserve.training.request import TrainRequest
from signalserve.training.split import Spans, Split, chronological_split, final_window, purge, split_by_spans

MIN_ROWS_A_CLASS = 10
_LOOKAHEAD_CUTS = 3


@dataclass(frozen=True)
class Dataset:
    """Bars as a model sees them: `matrix` float64 [n, k] with its `names`, labels, and the split by position.

    `window` are the bars of the training part that the final model is fitted on.
    """

    bars: Bars
    names: tuple[str, ...]
    matrix: NDArray[np.float64]
    labels: Labels
    split: Split
    window: range

    def labelled(self, span: range) -> NDArray[np.intp]:
        """Positions of a span that have a class."""
        return span.start + np.flatnonzero(self.labels.known[span.start : span.stop])

    def fit_rows(self, span: range, test: range) -> NDArray[np.intp]:
        """Positions of a span that a fit may learn from: they have a class, and it has read no bar of `test`."""
        return purge(self.labelled(span), self.labels.end, test.start)

    @property
    def last_seen(self) -> int:
        """The last bar that the training part reaches: its own last, or that of the longest label."""
        rows = self.fit_rows(self.split.train, self.split.test)
        return max(self.split.train.stop - 1, int(self.labels.end[rows].max(initial=0)))

    def class_counts(self, rows: NDArray[np.intp]) -> tuple[int, int]:
        """How many of some labelled bars are of class 0, and of class 1."""
        ups = int(self.labels.classes[rows].sum())
        return len(rows) - ups, ups

    def opened(self, position: int) -> str:
        """Open time of a bar, as ISO text."""
        return str(self.bars.frame.index[position].isoformat())


def read_dataset(request: TrainRequest, report: Report = quiet) -> Dataset:
    """A request's bars as its model sees them; the features are proven to read nothing ahead.

    Raises:
        FeatureError: the bars can't be read.
        TrainingError: as `prepare`, or a feature reads beyond its bar.
    """
    report(f"reading {request.ohlcv}")
    bars = read_bars(request.ohlcv, timeframe=request.timeframe)
    pipeline = FeaturePipeline(request.preset)
    report(f"computing {len(pipeline.names)} features of {len(bars.frame):,} bars")
    dataset = prepare(bars, pipeline, request)
    cuts = random_cuts(len(bars.frame), warmup=pipeline.warmup_bars, count=_LOOKAHEAD_CUTS, seed=request.seed)
    check_no_lookahead(pipeline.transform, bars.frame, cuts=cuts)
    return dataset


def prepare(bars: Bars, pipeline: FeaturePipeline, request: TrainRequest) -> Dataset:
    """Compute features and labels and split the bars.

    Raises:
        TrainingError: there are too few bars, in the file or in a span, or too few of a class.
    """
    label = request.label
    split = split_bars(bars, pipeline.warmup_bars, request)
    labels = make_labels(bars, label)
    matrix = np.ascontiguousarray(pipeline.transform(bars.frame).to_numpy())
    window = final_window(split.train, request.walk_forward, horizon=label.horizon_bars)
    dataset = Dataset(bars, pipeline.names, matrix, labels, split, window)
    downs, ups = dataset.class_counts(dataset.fit_rows(window, split.test))
    if min(ups, downs) < MIN_ROWS_A_CLASS:
        raise TrainingError(
            f"the training span has {ups} bars of class 1 and {downs} of class 0, and a fit needs"
            f" {MIN_ROWS_A_CLASS} of each; give a longer file or thresholds nearer zero (ml.label)"
        )
    return dataset


def split_bars(bars: Bars, warmup: int, request: TrainRequest) -> Split:
    """The training part and the test span of a file whose first `warmup` bars have no features.

    Raises:
        TrainingError: a part holds too few bars.
    """
    index = pd.DatetimeIndex(bars.frame.index)
    horizon, apart = request.label.horizon_bars, request.walk_forward.embargo_bars
    if len(index) <= warmup:
        spans = Spans()
    elif request.lookback_days is not None:
        spans = Spans(train_start=index[-1] - pd.Timedelta(days=request.lookback_days))
    else:
        spans = request.spans
    if spans == Spans():
        return chronological_split(
            len(index), first=warmup, test_fraction=request.test_fraction, embargo=horizon + apart
        )
    return split_by_spans(
        index, spans, first=warmup, test_fraction=request.test_fraction, embargo=horizon, apart=apart
    )
