"""Folds go forward, no label of a fit reads a bar that it is tested on, and where there is nothing to learn the
folds learn nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from purgedcv import WalkForwardSplit

from signalserve.config.ml import WalkForwardSettings
from signalserve.config.settings import Settings
from signalserve.features.bars import Bars, read_bars
from signalserve.features.pipeline import FeaturePipeline
from signalserve.features.synthetic import synthetic_bars
from signalserve.training.dataset import Dataset, prepare
from signalserve.training.errors import TrainingError
from signalserve.training.labels import Labels, fixed_horizon, triple_barrier
from signalserve.training.request import TrainRequest
from signalserve.training.split import Split, final_window, purge, walk_forward_folds
from signalserve.training.walk_forward import walk_forward


def request(settings: Settings, bars: Path | None = None, **ml: object) -> TrainRequest:
    changed = Settings(**{**settings.model_dump(), "ml": {**settings.ml.model_dump(), **ml}})
    return TrainRequest.from_settings(changed, "SYNTH", ohlcv=bars)


def dataset_of(choice: TrainRequest) -> Dataset:
    return prepare(read_bars(choice.ohlcv), FeaturePipeline(choice.preset), choice)


@given(
    start=st.integers(0, 300),
    length=st.integers(0, 600),
    folds=st.integers(2, 12),
    horizon=st.integers(1, 30),
    embargo=st.integers(0, 20),
    window=st.one_of(st.none(), st.integers(10, 200)),
    mode=st.sampled_from(["expanding", "rolling"]),
)
def test_folds_tile_the_end_of_the_span_with_a_gap_of_bars_before_each(
    start: int, length: int, folds: int, horizon: int, embargo: int, window: int | None, mode: Any
) -> None:
    train_bars = window if mode == "rolling" else None
    settings = WalkForwardSettings(mode=mode, folds=folds, train_bars=train_bars, embargo_bars=embargo)
    span = range(start, start + length)
    try:
        made = walk_forward_folds(span, settings, horizon=horizon)
    except TrainingError as error:
        assert "too few" in str(error)
        return
    assert len(made) == folds
    for train, test in made:
        assert span.start <= train.start < train.stop <= test.start - horizon - embargo
        assert train.stop == test.start - horizon - embargo
        assert len(test) == len(made[0][1])
        if mode == "expanding":
            assert train.start == span.start
        else:
            assert len(train) == (window or len(made[0][0]))
    assert [test.start for _, test in made[1:]] == [test.stop for _, test in made[:-1]]
    assert made[-1][1].stop == span.stop
    last = final_window(span, settings, horizon=horizon)
    assert last.stop == span.stop
    assert len(last) == (length if mode == "expanding" else min(length, window or len(made[0][0])))


@pytest.mark.parametrize("window", [None, 60])
@pytest.mark.parametrize("embargo", [0, 7])
def test_fixed_horizon_folds_are_those_of_another_library(window: int | None, embargo: int) -> None:
    n, horizon, folds = 400, 5, 4
    opened = pd.Series(pd.date_range("2024-01-01", periods=n, freq="15min"))
    step = pd.Timedelta(minutes=15)
    labels = fixed_horizon(np.ones(n), horizon_bars=horizon, up_threshold=0.0, down_threshold=0.0)
    settings = WalkForwardSettings(
        mode="rolling" if window else "expanding", folds=folds, train_bars=window, embargo_bars=embargo
    )
    ours = walk_forward_folds(range(n), settings, horizon=horizon)
    # a label's interval ends when the last bar that it reads closes
    theirs = WalkForwardSplit(
        folds,
        len(ours[0][1]),
        train_size=window,
        window="sliding" if window else "expanding",
        prediction_times=opened,
        evaluation_times=opened + step * (horizon + 1),
        purge_horizon=step * embargo if embargo else None,
    )
    for (train, test), (their_train, their_test) in zip(ours, theirs.split(np.empty((n, 1))), strict=True):
        np.testing.assert_array_equal(test, their_test)
        np.testing.assert_array_equal(train, their_train)
        np.testing.assert_array_equal(purge(np.array(train), labels.end, test.start), their_train)


def test_triple_barrier_folds_purge_all_that_another_library_purges() -> None:
    n, horizon = 600, 24
    random = np.random.default_rng(3)
    close = 100.0 * np.exp(np.cumsum(random.normal(0.0, 0.004, n)))
    labels = triple_barrier(
        close * 1.002, close * 0.998, close, horizon_bars=horizon, up_threshold=0.01, down_threshold=-0.01
    )
    opened = pd.Series(pd.date_range("2024-01-01", periods=n, freq="15min"))
    step = pd.Timedelta(minutes=15)
    theirs = WalkForwardSplit(
        3,
        n // 4,
        prediction_times=opened,
        evaluation_times=opened.iloc[labels.end].reset_index(drop=True) + step,
    )
    ours = walk_forward_folds(range(n), WalkForwardSettings(folds=3), horizon=horizon)
    for (train, test), (their_train, their_test) in zip(ours, theirs.split(np.empty((n, 1))), strict=True):
        np.testing.assert_array_equal(test, their_test)
        # with no gap at all, purging by the labels' own ends keeps what they keep
        np.testing.assert_array_equal(purge(np.arange(test.start), labels.end, test.start), their_train)
        assert set(train) <= set(their_train.tolist())


def planted(settings: Settings, *, purged: bool) -> float:
    """Out-of-sample AUC where a label is known from any other label of its block of bars, and from nothing else.

    The label of bar t says how block (t + 5) // 10 went, and the features name that block, so bars on both sides
    of a fold's start share one. `purged` False claims that no label reads beyond its own bar.
    """
    folds, block = 100, 10
    n = (folds + 1) * block
    random = np.random.default_rng(7)
    blocks = (np.arange(n) + block // 2) // block
    classes = random.integers(0, 2, folds + 2).astype(np.float64)[blocks]
    matrix = random.standard_normal((folds + 2, 6))[blocks]
    end = np.minimum(blocks * block + block // 2 - 1, n - 1) if purged else np.arange(n)
    labels = Labels(classes, np.zeros(n), 1, end.astype(np.intp))
    bars = Bars(Path("planted.csv"), "15m", synthetic_bars("PLANT", n, seed=1), (), "")
    made = Dataset(bars, tuple("abcdef"), matrix, labels, Split(range(n), range(n, n), 1), range(n))
    choice = request(
        settings,
        model_type="extra_trees",
        models={"extra_trees": {"n_estimators": 3, "max_depth": None, "min_samples_leaf": 1}},
        label={"horizon_bars": 1},
        walk_forward={"folds": folds},
    )
    return float(walk_forward(made, choice).metrics["auc"])


def test_purging_by_the_end_of_each_label_closes_a_leak_through_labels_that_overlap(
    settings: Settings,
) -> None:
    # 100 blocks, independent coins: the standard error of an AUC without skill is sqrt(101 / (12 * 50 * 50))
    noise = float(np.sqrt(101 / (12 * 50 * 50)))
    assert planted(settings, purged=False) > 0.5 + 4 * noise
    assert abs(planted(settings, purged=True) - 0.5) < 2 * noise


def random_walk(path: Path, bars: int, seed: int) -> Path:
    """A geometric random walk whose bars hold nothing to learn: independent returns of one size."""
    random = np.random.default_rng(seed)
    steps = np.cumsum(random.normal(0.0, 0.001, (bars, 8)).ravel()).reshape(bars, 8)
    prices = 100.0 * np.exp(steps)
    frame = pd.DataFrame(
        {
            "open": prices[:, 0],
            "high": prices.max(axis=1),
            "low": prices.min(axis=1),
            "close": prices[:, -1],
            "volume": random.lognormal(5.0, 0.5, bars),
        },
        index=pd.date_range("2024-01-01", periods=bars, freq="15min", tz="UTC", name="timestamp"),
    )
    frame.to_csv(path)
    return path


@pytest.mark.parametrize("method", ["fixed_horizon", "triple_barrier"])
def test_random_walk_prices_give_an_auc_within_noise_of_a_half(
    settings: Settings, tmp_path: Path, method: str
) -> None:
    choice = request(
        settings,
        random_walk(tmp_path / "walk.csv", 8000, seed=5),
        label={"method": method, "horizon_bars": 4, "up_threshold": 0.002, "down_threshold": -0.002},
        walk_forward={"folds": 4},
    )
    made = dataset_of(choice)
    result = walk_forward(made, choice)
    rows = made.labelled(result.span)
    downs, ups = (count / choice.label.horizon_bars for count in made.class_counts(rows))
    # overlapping labels repeat themselves: what counts are the rows over the horizon. Hanley & McNeil (1982)
    noise = float(np.sqrt((ups + downs + 1) / (12 * ups * downs)))
    assert noise < 0.02
    assert abs(float(result.metrics["auc"]) - 0.5) < 4 * noise


def test_the_synthetic_pattern_is_found_in_every_fold_and_joined_into_one_series(
    settings: Settings, bar_file: Path
) -> None:
    choice = request(settings, bar_file, walk_forward={"folds": 3, "embargo_bars": 2})
    made = dataset_of(choice)
    told: list[tuple[float, float, str]] = []

    def report(step: str, *, done: float = 0.0, total: float = 0.0, note: str = "") -> None:
        assert step == "walking forward: 3 folds of rf"
        told.append((done, total, note))

    result = walk_forward(made, choice, report=report)
    assert [fold.number for fold in result.folds] == [1, 2, 3]
    answered = np.flatnonzero(np.isfinite(result.probability))
    np.testing.assert_array_equal(answered, np.arange(result.span.start, result.span.stop))
    assert result.span.stop == made.split.train.stop
    assert float(result.metrics["auc"]) > 0.53
    # each fold is what a fit on its own rows alone gives
    for fold in result.folds:
        rows = made.labelled(fold.train)
        assert fold.rows == len(rows)
        assert made.labels.end[rows].max() < fold.test.start - 2
        model = choice.model().fit(made.matrix[rows], made.labels.classes[rows].astype(int))
        np.testing.assert_array_equal(
            result.probability[fold.test.start : fold.test.stop],
            model.predict_proba(made.matrix[fold.test.start : fold.test.stop])[:, 1],
        )
    assert [note.split(",")[0] for _, _, note in told[:3]] == ["fold 1/3", "fold 2/3", "fold 3/3"]
    assert "AUC so far" in told[1][2]
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)
    assert told[-1][0] == told[-1][1]


def test_a_fold_without_enough_of_a_class_gives_no_answer_and_says_so(
    settings: Settings, bar_file: Path
) -> None:
    choice = request(settings, bar_file, walk_forward={"folds": 40})
    made = dataset_of(choice)
    result = walk_forward(made, choice)
    assert "bars of class 1" in result.folds[0].skipped
    assert result.folds[0].auc is None
    assert np.isnan(result.probability[result.folds[0].test.start : result.folds[0].test.stop]).all()
    assert not result.folds[-1].skipped
    assert result.metrics["auc"] is not None


def test_folds_that_can_t_be_made_are_refused_with_the_numbers(settings: Settings, bar_file: Path) -> None:
    choice = request(settings, bar_file, walk_forward={"mode": "rolling", "folds": 2, "train_bars": 1720})
    with pytest.raises(TrainingError, match=r"1721 training bars are too few for 2 .* folds of 1720 bars"):
        dataset_of(choice), walk_forward(dataset_of(choice), choice)
