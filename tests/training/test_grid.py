"""`--grid`: what is tried inside the training part, what is written down, and what is registered of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import psutil
import pytest

from signalserve.config.settings import Settings
from signalserve.features.bars import read_bars
from signalserve.features.pipeline import FeaturePipeline
from signalserve.registry import list_models, load_registry
from signalserve.training.dataset import prepare
from signalserve.training.errors import TrainingError, TrainingRequestError
from signalserve.training.grid import grid_search
from signalserve.training.models import MODEL_TYPES
from signalserve.training.request import TrainRequest
from signalserve.training.run import train
from signalserve.training.walk_forward import walk_forward

GRID: dict[str, list[Any]] = {"max_depth": [2, 5], "min_samples_leaf": [5, 60]}


@pytest.fixture
def choice(settings: Settings, bar_file: Path, tmp_path: Path) -> TrainRequest:
    """Four forests of eight trees, tried one after another in this process."""
    request = TrainRequest.from_settings(
        settings,
        "SYNTH",
        params={"n_estimators": 8},
        grid=True,
        ohlcv=bar_file,
        output_dir=tmp_path / "models",
    )
    return replace(request, grid=GRID, grid_jobs=1, grid_metric="auc")


def results(request: TrainRequest) -> pd.DataFrame:
    [path] = request.base_dir.glob("rf_grid_results_SYNTH_15m_*.csv")
    return pd.read_csv(path)


def test_every_parameter_set_is_a_row_and_the_best_is_trained_with_the_number_of_trials(
    choice: TrainRequest,
) -> None:
    told: list[tuple[float, float, str]] = []

    def report(step: str, *, done: float = 0.0, total: float = 0.0, note: str = "") -> None:
        if "parameter sets" in step:
            told.append((done, total, note))

    result = train(choice, report=report)
    table = results(choice)
    assert table["model_type"].tolist() == ["rf"] * 4
    assert table["rank"].tolist() == [1, 2, 3, 4]
    assert table["error"].isna().all()
    assert table["auc"].is_monotonic_decreasing
    assert {"sharpe", "cum_return", "log_loss", "brier"} <= set(table.columns)
    tried = set(map(tuple, table[["max_depth", "min_samples_leaf", "n_estimators"]].to_numpy().tolist()))
    assert tried == {(depth, leaf, 8) for depth in (2, 5) for leaf in (5, 60)}

    best = table.iloc[0]
    meta = result.metadata
    assert meta.extra["model_params"] == {
        "n_estimators": 8,
        "max_depth": best["max_depth"],
        "min_samples_leaf": best["min_samples_leaf"],
    }
    forest = joblib.load(result.path / "model.joblib")
    assert (forest.max_depth, forest.min_samples_leaf) == (best["max_depth"], best["min_samples_leaf"])
    trials = meta.extra["trials"]
    assert (trials["count"], trials["metric"]) == (4, "auc")
    assert (choice.base_dir / trials["file"]).is_file()
    per_bar = table["sharpe"] / np.sqrt(35040.0)
    assert trials["per_bar_sharpe_variance"] == pytest.approx(per_bar.var(ddof=1))
    assert [entry.model_id for entry in list_models(choice.base_dir)] == [result.model_id]
    assert [done for done, _, _ in told] == [0, 1, 2, 3, 4]
    assert told[-1][2] == f"best auc {best['auc']:.3f}"


def test_a_row_is_what_a_walk_forward_of_those_parameters_gives(choice: TrainRequest) -> None:
    result = train(choice)
    alone = replace(choice, params=result.metadata.extra["model_params"], grid=None)
    dataset = prepare(read_bars(choice.ohlcv), FeaturePipeline("core"), alone)
    metrics = walk_forward(dataset, alone).metrics
    assert results(choice).iloc[0]["auc"] == pytest.approx(metrics["auc"])
    assert result.metadata.extra["walk_forward"]["metrics"] == metrics


@pytest.mark.parametrize(("metric", "smaller_wins"), [("sharpe", False), ("log_loss", True), ("brier", True)])
def test_each_metric_is_ranked_in_its_own_direction(
    choice: TrainRequest, metric: str, smaller_wins: bool
) -> None:
    request = replace(choice, grid_metric=metric)
    dataset = prepare(read_bars(request.ohlcv), FeaturePipeline("core"), request)
    measured = [item.outcome.metrics for item in grid_search(dataset, request).candidates if item.outcome]
    values = [metrics[metric] for metrics in measured if metrics["trades"] or metric != "sharpe"]
    assert values == sorted(values, reverse=not smaller_wins)
    assert len(values) > 1


def test_a_parameter_set_that_never_trades_does_not_win_by_losing_nothing(choice: TrainRequest) -> None:
    # a split needs more bars than there are, so each of the trees gives one answer, and no signal
    idle = replace(choice, grid={"min_samples_leaf": [100_000, 25]}, grid_metric="cum_return")
    dataset = prepare(read_bars(idle.ohlcv), FeaturePipeline("core"), idle)
    first, second = grid_search(dataset, idle).candidates
    assert first.outcome is not None
    assert second.outcome is not None
    assert second.outcome.metrics["trades"] == 0
    assert second.outcome.metrics["cum_return"] == 0.0
    assert (first.outcome.metrics["cum_return"] or 0.0) < 0.0 < (first.outcome.metrics["trades"] or 0)


def test_bars_of_the_test_span_have_no_say_in_the_choice(
    choice: TrainRequest, bar_file: Path, tmp_path: Path
) -> None:
    plain = train(choice)
    table = results(choice)
    frame = pd.read_csv(bar_file)
    start = pd.to_datetime(frame["timestamp"]) >= pd.Timestamp(plain.metadata.extra["test_start"])
    frame.loc[start, ["open", "high", "low", "close"]] *= 3.0
    frame.to_csv(tmp_path / "other.csv", index=False)
    other = replace(choice, ohlcv=tmp_path / "other.csv", base_dir=tmp_path / "others")
    changed = train(other)
    assert changed.metrics != plain.metrics
    pd.testing.assert_frame_equal(results(other), table)


def test_a_candidate_that_fails_is_a_row_with_its_error_and_no_trial(choice: TrainRequest) -> None:
    result = train(replace(choice, grid={"max_depth": [-1, 3]}))
    table = results(choice)
    assert "InvalidParameterError" in table["error"].iloc[1]
    assert table["max_depth"].tolist() == [3, -1]
    assert np.isnan(table["auc"].iloc[1])
    assert result.metadata.extra["trials"]["count"] == 1
    assert result.metadata.extra["trials"]["per_bar_sharpe_variance"] is None


def test_a_grid_of_nothing_but_failures_is_a_failed_run_whose_table_stays(choice: TrainRequest) -> None:
    with pytest.raises(TrainingError, match=r"all 2 parameter sets failed; the first: InvalidParameterError"):
        train(replace(choice, grid={"max_depth": [-1, -2]}))
    assert [entry.status for entry in load_registry(choice.base_dir)] == ["failed"]
    assert results(choice)["error"].notna().all()


def test_of_equal_candidates_the_first_wins(choice: TrainRequest) -> None:
    dataset = prepare(read_bars(choice.ohlcv), FeaturePipeline("core"), choice)
    search = grid_search(dataset, replace(choice, grid={"verbose": [0, False]}))
    assert [item.params["verbose"] is False for item in search.candidates] == [False, True]


def test_processes_give_the_same_table_and_are_gone_afterwards(choice: TrainRequest) -> None:
    def table(request: TrainRequest) -> list[tuple[dict[str, Any], Any]]:
        dataset = prepare(read_bars(request.ohlcv), FeaturePipeline("core"), request)
        found = grid_search(dataset, request).candidates
        return [(dict(item.params), item.outcome and item.outcome.metrics) for item in found]

    before = set(psutil.Process().children(recursive=True))
    assert table(replace(choice, grid_jobs=2)) == table(choice)
    left = set(psutil.Process().children(recursive=True)) - before
    # the resource tracker of joblib is one a process and ends with it
    assert [child for child in left if "resource_tracker" not in " ".join(child.cmdline())] == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda request: replace(request, grid={"n_trees": [1]}), "has no parameter n_trees"),
        (lambda request: replace(request, grid={"max_depth": []}), r"ml.grids.rf.max_depth has no value"),
        (
            lambda request: replace(request, model_type="gb", params={}, grid={}),
            "there is no grid for gb: say in ml.grids.gb",
        ),
    ],
)
def test_a_grid_that_can_t_be_tried_writes_nothing(
    choice: TrainRequest, change: Callable[[TrainRequest], TrainRequest], says: str
) -> None:
    with pytest.raises(TrainingRequestError, match=says):
        train(change(choice))
    assert not choice.base_dir.exists()


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_every_model_type_has_a_grid_of_its_own_that_trains(
    settings: Settings, bar_file: Path, tmp_path: Path, model_type: str
) -> None:
    request = TrainRequest.from_settings(
        settings, "SYNTH", model_type=model_type, grid=True, ohlcv=bar_file, output_dir=tmp_path / "models"
    )
    assert request.grid
    *most, last = request.grid.items()  # the second parameter's ends are enough
    few = {name: values[:1] for name, values in most} | {last[0]: [last[1][0], last[1][-1]]}
    result = train(replace(request, grid=few, grid_jobs=1))
    table = results(request)
    assert table["error"].isna().all()
    assert table["model_type"].tolist() == [model_type] * 2
    assert result.metadata.extra["trials"]["count"] == 2


def test_trials_in_meta_json_are_plain_numbers(choice: TrainRequest) -> None:
    result = train(replace(choice, grid={"max_depth": [2, 3]}))
    trials = json.loads((result.path / "meta.json").read_text(encoding="utf-8"))["trials"]
    assert isinstance(trials["count"], int)
    assert isinstance(trials["per_bar_sharpe_variance"], float)
