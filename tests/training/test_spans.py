"""Which bars a run uses: the last days, or spans with fixed ends, with the warm-up taken from the bars before."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from signalserve.config.settings import Settings
from signalserve.features.bars import read_bars
from signalserve.features.pipeline import FeaturePipeline
from signalserve.training.dataset import Dataset, prepare
from signalserve.training.errors import TrainingError, TrainingRequestError
from signalserve.training.request import TrainRequest

STEP = pd.Timedelta(minutes=15)


def made(settings: Settings, bar_file: Path, **spans: object) -> Dataset:
    request = TrainRequest.from_settings(settings, "SYNTH", ohlcv=bar_file, **spans)  # type: ignore[arg-type]
    return prepare(read_bars(bar_file), FeaturePipeline("core"), request)


def times(dataset: Dataset) -> list[pd.Timestamp]:
    index = dataset.bars.frame.index
    train, test = dataset.split.train, dataset.split.test
    return [index[train.start], index[train.stop - 1], index[test.start], index[test.stop - 1]]


def test_lookback_counts_back_from_the_last_bar_and_costs_no_warm_up(
    settings: Settings, bar_file: Path
) -> None:
    whole, part = made(settings, bar_file), made(settings, bar_file, lookback_days=10)
    index = part.bars.frame.index
    start, _, test_start, end = times(part)
    assert (start, end) == (index[-1] - pd.Timedelta(days=10), index[-1])
    assert len(part.split.test) == round(961 * 0.25)
    assert part.split.train.stop == part.split.test.start - 4
    assert test_start > start
    np.testing.assert_array_equal(part.matrix, whole.matrix)
    assert np.isfinite(part.matrix[part.split.train.start]).all()


def test_embargo_bars_lie_between_the_training_and_the_test_too(settings: Settings, bar_file: Path) -> None:
    walk = settings.ml.walk_forward.model_copy(update={"embargo_bars": 20})
    apart = settings.model_copy(update={"ml": settings.ml.model_copy(update={"walk_forward": walk})})
    for spans in ({}, {"lookback_days": 10}, {"test_start": datetime(2024, 1, 15, tzinfo=UTC)}):
        split = made(apart, bar_file, **spans).split
        assert split.train.stop == split.test.start - 4 - 20
        assert split.test == made(settings, bar_file, **spans).split.test
    # where the spans leave room already, nothing more is left out
    given = {"train_end": datetime(2024, 1, 14, tzinfo=UTC), "test_start": datetime(2024, 1, 16, tzinfo=UTC)}
    assert made(apart, bar_file, **given).split == made(settings, bar_file, **given).split


def test_a_lookback_beyond_the_file_is_the_whole_file(settings: Settings, bar_file: Path) -> None:
    assert made(settings, bar_file, lookback_days=5000).split == made(settings, bar_file).split


def test_fixed_spans_set_the_split_and_the_fit_reads_no_price_after_its_end(
    settings: Settings, bar_file: Path
) -> None:
    given = {
        "train_start": datetime(2024, 1, 5, tzinfo=UTC),
        "train_end": datetime(2024, 1, 15, tzinfo=timezone(timedelta(hours=2))),
        "test_start": datetime(2024, 1, 16),  # noqa: DTZ001 - a time without a zone is UTC
        "test_end": datetime(2024, 1, 20, tzinfo=UTC),
    }
    dataset = made(settings, bar_file, **given)
    train_end = pd.Timestamp("2024-01-14T22:00Z")
    assert times(dataset) == [
        pd.Timestamp("2024-01-05", tz="UTC"),
        train_end - 4 * STEP,
        pd.Timestamp("2024-01-16", tz="UTC"),
        pd.Timestamp("2024-01-20", tz="UTC"),
    ]
    rows = dataset.fit_rows(dataset.window, dataset.split.test)
    assert dataset.bars.frame.index[dataset.labels.end[rows].max()] <= train_end


@pytest.mark.parametrize(
    ("given", "train_stop", "test_start"),
    [
        ({"train_end": datetime(2024, 1, 15, tzinfo=UTC)}, "2024-01-14T23:00Z", "2024-01-15T00:15Z"),
        ({"test_start": datetime(2024, 1, 15, tzinfo=UTC)}, "2024-01-14T22:45Z", "2024-01-15T00:00Z"),
    ],
)
def test_of_train_end_and_test_start_either_is_enough(
    settings: Settings, bar_file: Path, given: dict[str, object], train_stop: str, test_start: str
) -> None:
    dataset = made(settings, bar_file, **given)
    _, stop, start, end = times(dataset)
    assert (stop, start) == (pd.Timestamp(train_stop), pd.Timestamp(test_start))
    assert end == dataset.bars.frame.index[-1]


def test_outer_bounds_alone_leave_the_split_to_the_fraction(settings: Settings, bar_file: Path) -> None:
    dataset = made(
        settings,
        bar_file,
        train_start=datetime(2024, 1, 6, tzinfo=UTC),
        test_end=datetime(2024, 1, 16, tzinfo=UTC),
    )
    assert len(dataset.split.test) == round(961 * 0.25)
    assert times(dataset)[3] == pd.Timestamp("2024-01-16", tz="UTC")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"train_end": datetime(2023, 1, 1, tzinfo=UTC)}, "the training span holds 0 usable bars"),
        ({"test_start": datetime(2025, 1, 1, tzinfo=UTC)}, "the test span holds 0 usable bars"),
        ({"lookback_days": 0.01}, "the training span holds 0 usable bars"),
        ({"train_start": datetime(2024, 1, 24, tzinfo=UTC)}, "walk-forward folds|a fit needs 10 of each"),
    ],
)
def test_spans_with_no_or_too_few_bars_are_refused_with_what_the_file_holds(
    settings: Settings, bar_file: Path, given: dict[str, object], says: str
) -> None:
    few = Settings(
        **{**settings.model_dump(), "ml": {**settings.ml.model_dump(), "label": {"up_threshold": 0.02}}}
    )
    with pytest.raises(TrainingError, match=says):
        made(few, bar_file, **given)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"lookback_days": 0.0}, "lookback_days is 0.0"),
        ({"lookback_days": float("nan")}, "lookback_days is nan"),
        (
            {"lookback_days": 3.0, "test_end": datetime(2024, 1, 9, tzinfo=UTC)},
            "lookback_days and test_end exclude",
        ),
        (
            {
                "train_end": datetime(2024, 1, 9, tzinfo=UTC),
                "test_start": datetime(2024, 1, 8, tzinfo=UTC),
            },
            "test_start 2024-01-08T00:00:00.00:00 must not be before train_end",
        ),
    ],
)
def test_spans_that_contradict_one_another_are_no_request(
    settings: Settings, bar_file: Path, given: dict[str, object], says: str
) -> None:
    with pytest.raises(TrainingRequestError, match=says):
        made(settings, bar_file, **given)


def test_a_rolling_model_is_fitted_on_the_last_window_of_the_training_part(
    settings: Settings, bar_file: Path
) -> None:
    def with_walk(**walk: object) -> Dataset:
        ml = {**settings.ml.model_dump(), "walk_forward": walk}
        return made(Settings(**{**settings.model_dump(), "ml": ml}), bar_file)

    rolling, whole = with_walk(mode="rolling", folds=3, train_bars=500), with_walk(folds=3)
    assert rolling.window == range(rolling.split.train.stop - 500, rolling.split.train.stop)
    assert whole.window == whole.split.train
    first = with_walk(mode="rolling", folds=3)
    assert len(first.window) == len(first.split.train) - 3 * (len(first.split.train) // 4) - 4
