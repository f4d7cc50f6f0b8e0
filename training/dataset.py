"""Bars as a model sees them: features, labels, and which bars are for the fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.bars import Bars
from features.pipeline import FeaturePipeline
from training.errors import TrainingError
from training.labels import Labels, fixed_horizon
from training.request import TrainRequest
from training.split import Split, chronological_split

_MIN_ROWS_A_CLASS = 10


@dataclass(frozen=True)
class Dataset:
    """Bars as a model sees them: `matrix` float64 [n, k] with its `names`, labels, and the split by position."""

    bars: Bars
    names: tuple[str, ...]
    matrix: NDArray[np.float64]
    labels: Labels
    split: Split

    def labelled(self, span: range) -> NDArray[np.intp]:
        """Positions of a span that have a class."""
        return span.start + np.flatnonzero(self.labels.known[span.start : span.stop])

    def opened(self, position: int) -> str:
        """Open time of a bar, as ISO text."""
        return str(self.bars.frame.index[position].isoformat())


def prepare(bars: Bars, pipeline: FeaturePipeline, request: TrainRequest) -> Dataset:
    """Compute features and labels and split the bars.

    Raises:
        TrainingError: there are too few bars, or too few of a class.
    """
    label = request.label
    split = chronological_split(
        len(bars.frame),
        first=pipeline.warmup_bars,
        test_fraction=request.test_fraction,
        embargo=label.horizon_bars,
    )
    labels = fixed_horizon(
        bars.frame["close"].to_numpy(),
        horizon_bars=label.horizon_bars,
        up_threshold=label.up_threshold,
        down_threshold=label.down_threshold,
    )
    matrix = np.ascontiguousarray(pipeline.transform(bars.frame).to_numpy())
    dataset = Dataset(bars, pipeline.names, matrix, labels, split)
    classes = labels.classes[dataset.labelled(split.train)]
    ups, downs = int((classes == 1.0).sum()), int((classes == 0.0).sum())
    if min(ups, downs) < _MIN_ROWS_A_CLASS:
        raise TrainingError(
            f"the training span has {ups} bars of class 1 and {downs} of class 0, and a fit needs"
            f" {_MIN_ROWS_A_CLASS} of each; give a longer file or thresholds nearer zero (ml.label)"
        )
    return dataset
