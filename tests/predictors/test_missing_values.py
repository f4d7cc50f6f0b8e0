"""Missing values are answered by models that were fitted with some, or whose owner says so; others refuse them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import xgboost
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression

from signalserve.predictors.declared import Declared
from signalserve.predictors.errors import DeclarationError, InputError
from signalserve.predictors.opening import open_predictor
from signalserve.predictors.predictor import Predictor
from signalserve.predictors.seal import seal_run_dir
from tests.predictors.conftest import MODELS, NAMES, training_data

X, Y, VALUES = training_data()
HOLES = X.copy()
HOLES[::5, 2] = np.nan


def opened(folder: Path, model: Any, reference: np.ndarray | None, **declared: Any) -> Predictor:
    """The model, sealed with these training rows and declarations, as a server opens it."""
    folder.mkdir(parents=True)
    joblib.dump(model, folder / "model.joblib")
    seal_run_dir(folder, model, NAMES, reference, declared=Declared.of(declared))
    return open_predictor(folder)


def refuses(predictor: Predictor) -> bool:
    with pytest.raises(InputError) as caught:
        predictor.predict(HOLES[:5])
    found = caught.value
    return (found.reason, found.row, found.column) == ("NAN_VALUE", 0, "feature_2")


@pytest.mark.parametrize("name", ["xgb", "hist_gb", "booster"])
def test_a_model_takes_missing_values_if_its_training_rows_had_some(name: str, tmp_path: Path) -> None:
    with_holes, whole = MODELS[name](HOLES, Y, VALUES), MODELS[name](X, Y, VALUES)
    takes = opened(tmp_path / "takes", with_holes, HOLES)
    assert takes.accepts_nan
    expected = (
        with_holes.predict(xgboost.DMatrix(HOLES, feature_names=NAMES))
        if name == "booster"
        else with_holes.predict_proba(HOLES)[:, 1]
    )
    assert np.max(np.abs(takes.predict(HOLES) - expected)) <= 1e-6
    assert refuses(opened(tmp_path / "whole", whole, X))
    assert refuses(opened(tmp_path / "unknown", whole, None))


def test_one_missing_value_in_a_long_training_span_is_enough(tmp_path: Path) -> None:
    long = np.tile(X, (20, 1))
    long[7_777, 3] = np.nan
    model = xgboost.XGBClassifier(n_estimators=3, n_jobs=1).fit(long, np.tile(Y, 20))
    assert opened(tmp_path / "m", model, long).accepts_nan


@pytest.mark.parametrize("name", ["xgb", "hist_gb"])
def test_the_owner_may_declare_it_either_way(name: str, tmp_path: Path) -> None:
    whole = MODELS[name](X, Y, VALUES)
    declared = opened(tmp_path / "declared", whole, X, accepts_nan=True)
    assert declared.accepts_nan
    assert np.max(np.abs(declared.predict(HOLES) - whole.predict_proba(HOLES)[:, 1])) <= 1e-6
    fitted = MODELS[name](HOLES, Y, VALUES)
    assert refuses(opened(tmp_path / "forbidden", fitted, HOLES, accepts_nan=False))
    with pytest.raises(DeclarationError, match="true or false"):
        opened(tmp_path / "odd", whole, X, accepts_nan="yes")


def test_a_model_that_can_not_take_missing_values_does_not_whatever_is_declared(tmp_path: Path) -> None:
    for name, model in {
        "boosting": GradientBoostingClassifier(n_estimators=5, random_state=0).fit(X, Y),
        "logreg": LogisticRegression(max_iter=5000).fit(X / X.std(axis=0), Y),
    }.items():
        assert refuses(opened(tmp_path / name, model, X, accepts_nan=True))


def test_a_forest_that_learned_missing_values_gives_its_own_scores(tmp_path: Path) -> None:
    model = RandomForestClassifier(10, max_depth=5, random_state=0).fit(HOLES, Y)
    predictor = opened(tmp_path / "m", model, HOLES)
    assert predictor.accepts_nan
    assert np.max(np.abs(predictor.predict(HOLES) - model.predict_proba(HOLES)[:, 1])) <= 1e-6
    native = HistGradientBoostingClassifier(max_iter=5, random_state=0).fit(HOLES, Y)
    assert opened(tmp_path / "native", native, HOLES).engine == "native"
