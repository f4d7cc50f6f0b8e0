"""Every model type fits, is seeded, and says how much each feature counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from signalserve.training.errors import TrainingRequestError
from signalserve.training.importances import feature_importances
from signalserve.training.models import MODEL_TYPES, build_model, fit_model

SMALL: dict[str, dict[str, Any]] = {
    "logreg": {"C": 0.5},
    "rf": {"n_estimators": 8, "max_depth": 3},
    "extra_trees": {"n_estimators": 8, "max_depth": 3},
    "gb": {"n_estimators": 8},
    "hist_gb": {"max_iter": 8, "max_bins": 24},
    "xgb": {"n_estimators": 8},
    "calibrated_rf": {"n_estimators": 8, "max_depth": 3, "method": "isotonic", "cv": 2},
}
NAMES = ["noise_1", "signal", "noise_2"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As a run does: on busy cores OpenMP's threads wait for one another."""
    with threadpool_limits(limits=1):
        yield


def learnable(rows: int = 400) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    matrix = random.standard_normal((rows, 3))
    return matrix, (matrix[:, 1] + 0.3 * random.standard_normal(rows) > 0).astype(np.int64)


def test_small_parameters_cover_every_model_type() -> None:
    assert set(SMALL) == set(MODEL_TYPES)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_model_type_learns_repeats_itself_and_knows_what_counts(model_type: str) -> None:
    matrix, classes = learnable()
    fits = [build_model(model_type, SMALL[model_type], seed=3, embargo=2) for _ in range(2)]
    scores = [model.fit(matrix, classes).predict_proba(matrix)[:, 1] for model in fits]
    np.testing.assert_array_equal(scores[0], scores[1])
    assert ((scores[0] > 0.5) == classes).mean() > 0.85
    importances = feature_importances(fits[0], NAMES, matrix, classes.astype(float), seed=3)
    assert next(iter(importances)) == "signal"
    assert list(importances.values()) == sorted(importances.values(), reverse=True)
    assert sum(importances.values()) == pytest.approx(1.0)
    assert min(importances.values()) >= 0.0


@pytest.mark.parametrize("model_type", ["rf", "extra_trees", "xgb"])
def test_models_run_on_one_thread_unless_told_otherwise(model_type: str) -> None:
    assert build_model(model_type, {}, seed=1).get_params()["n_jobs"] == 1
    assert build_model(model_type, {"n_jobs": 2}, seed=1).get_params()["n_jobs"] == 2


def test_the_seed_is_the_random_state_and_case_does_not_matter() -> None:
    assert build_model(" RF ", {}, seed=11).get_params()["random_state"] == 11


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_an_unknown_parameter_is_refused_with_those_that_exist(model_type: str) -> None:
    with pytest.raises(TrainingRequestError, match="has no parameter n_trees; it has "):
        build_model(model_type, {"n_trees": 5}, seed=1)


def test_an_unknown_model_type_is_refused_with_those_that_exist() -> None:
    with pytest.raises(TrainingRequestError, match="no model type 'svm'; there are logreg, rf"):
        build_model("svm", {}, seed=1)


@pytest.mark.parametrize("folds", [1, "many", None])
def test_calibration_needs_a_number_of_folds(folds: object) -> None:
    with pytest.raises(TrainingRequestError, match="number of folds"):
        build_model("calibrated_rf", {"cv": folds}, seed=1)


def lopsided(rows: int = 1200) -> tuple[np.ndarray, np.ndarray]:
    """One bar in eight is of class 1."""
    random = np.random.default_rng(1)
    matrix = random.standard_normal((rows, 3))
    return matrix, (matrix[:, 1] + random.standard_normal(rows) > 1.63).astype(np.float64)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_balanced_classes_lift_the_rare_one_and_a_calibration_brings_it_back(model_type: str) -> None:
    matrix, classes = lopsided()

    def mean(**more: Any) -> float:
        params = {name: value for name, value in SMALL[model_type].items() if name != "method"}
        model = build_model(model_type, params, seed=3, embargo=2, **more)
        fit_model(model, matrix, classes, balanced=bool(more.get("balanced")))
        return float(model.predict_proba(matrix)[:, 1].mean())

    base_rate = float(classes.mean())
    plain, balanced = mean(), mean(balanced=True)
    assert plain == pytest.approx(base_rate, abs=0.05)
    if model_type == "calibrated_rf":  # its own calibration does so
        assert balanced == pytest.approx(base_rate, abs=0.05)
        return
    assert balanced > plain + 0.1
    for method in ("sigmoid", "isotonic"):
        calibrated = mean(balanced=True, calibration=method)
        if model_type != "gb":  # whose calibration is weighted as well
            assert calibrated == pytest.approx(base_rate, abs=0.05)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_calibration_is_fitted_on_rows_that_come_after_those_of_its_model(model_type: str) -> None:
    model = build_model(model_type, SMALL[model_type], seed=3, embargo=7, calibration="sigmoid")
    folds = list(model.cv.split(np.empty((400, 3))))
    assert all(train[-1] == test[0] - 8 for train, test in folds)
    matrix, classes = learnable()
    fit_model(model, matrix, classes.astype(float))
    assert len(model.calibrated_classifiers_) == len(folds)
    importances = feature_importances(model, NAMES, matrix, classes.astype(float), seed=3)
    assert next(iter(importances)) == "signal"


def test_weights_that_the_parameters_set_win() -> None:
    matrix, classes = lopsided()
    model = build_model("xgb", {"n_estimators": 4, "scale_pos_weight": 2.5}, seed=1, balanced=True)
    fit_model(model, matrix, classes, balanced=True)
    assert model.get_params()["scale_pos_weight"] == 2.5
    assert build_model("rf", {"class_weight": None}, seed=1, balanced=True).class_weight is None
