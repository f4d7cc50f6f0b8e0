"""Scores of the fitted model itself, one-threaded: what ONNX must reproduce, and what serves where it can't."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xgboost
from sklearn.base import is_classifier, is_regressor
from threadpoolctl import ThreadpoolController

from signalserve.predictors.errors import UnsupportedModelError
from signalserve.predictors.kinds import Kind, Matrix

_INNER = (
    "estimator",
    "estimators_",
    "steps",
    "calibrated_classifiers_",
    "best_estimator_",
    "final_estimator_",
)
_REGRESSION = ("reg:", "count:", "survival:", "rank:", "binary:logitraw")


class NativeModel:
    """A fitted model as a function of a matrix [n, k] to scores [n]."""

    def __init__(self, model: Any, feature_names: Sequence[str]) -> None:
        self.model = model
        self.feature_names = tuple(feature_names)
        _check_columns(model, self.feature_names)
        self.kind, self._raw = _scorer(model, self.feature_names)
        self._threads = ThreadpoolController()
        for part in walk(model):
            _one_thread(part)

    def scores(self, matrix: Matrix) -> Matrix:
        """Probability of class 1 (the greater of the two classes), or a regressor's value: float64 [n]."""
        # OpenMP's number of threads belongs to the calling thread, so it is set here and not once for all
        with self._threads.limit(limits=1, user_api="openmp"):
            return np.asarray(self._raw(matrix), dtype=np.float64).reshape(-1)

    def accepts_nan(self, row: Matrix) -> bool:
        """Whether the model answers a row [k] in which one value is missing."""
        probe = np.tile(row, (len(row), 1)).astype(np.float64)
        np.fill_diagonal(probe, np.nan)
        try:
            return bool(np.isfinite(self.scores(probe)).all())
        except ValueError:  # what scikit-learn raises for NaN
            return False


def walk(model: Any) -> Iterator[Any]:
    """The model and every fitted estimator in it."""
    yield model
    for name in _INNER:
        inner = getattr(model, name, None)
        for item in (
            np.ravel(np.array(inner, dtype=object)) if isinstance(inner, np.ndarray) else _listed(inner)
        ):
            yield from walk(item)


def _listed(inner: Any) -> list[Any]:
    if isinstance(inner, list):
        return [item[1] if isinstance(item, tuple) else item for item in inner]
    return [] if inner is None or isinstance(inner, str) else [inner]


def _one_thread(part: Any) -> None:
    if isinstance(part, xgboost.Booster):
        part.set_param({"nthread": 1})
    elif isinstance(part, xgboost.XGBModel):
        part.set_params(n_jobs=1)
        if part.__sklearn_is_fitted__():  # a calibrated model keeps the estimator that it copied, unfitted
            part.get_booster().set_param({"nthread": 1})
    elif getattr(part, "n_jobs", None) not in (None, 1):
        part.n_jobs = 1


def _scorer(model: Any, names: tuple[str, ...]) -> tuple[Kind, Callable[[Matrix], Any]]:
    if isinstance(model, xgboost.Booster):
        return _booster_scorer(model)
    named = getattr(model, "feature_names_in_", None) is not None

    def frame(matrix: Matrix) -> Any:
        return pd.DataFrame(matrix, columns=list(names), copy=False) if named else matrix

    if is_classifier(model) or hasattr(model, "predict_proba"):
        if not hasattr(model, "predict_proba"):
            raise UnsupportedModelError(
                f"{type(model).__name__} has no predict_proba; wrap it in CalibratedClassifierCV"
            )
        classes = len(getattr(model, "classes_", ()))
        if classes != 2:
            raise UnsupportedModelError(
                f"{type(model).__name__} knows {classes} classes; a score needs exactly two"
            )
        return "classifier", lambda matrix: model.predict_proba(frame(matrix))[:, 1]
    if is_regressor(model) or hasattr(model, "predict"):
        return "regressor", lambda matrix: model.predict(frame(matrix))
    raise UnsupportedModelError(f"{type(model).__name__} has neither predict_proba nor predict")


def _booster_scorer(booster: xgboost.Booster) -> tuple[Kind, Callable[[Matrix], Any]]:
    objective = booster_objective(booster)
    kind: Kind
    if objective == "binary:logistic":
        kind = "classifier"
    elif objective.startswith(_REGRESSION):
        kind = "regressor"
    else:
        raise UnsupportedModelError(f"a booster of objective {objective} does not give one score a row")
    names = booster.feature_names

    def raw(matrix: Matrix) -> Any:
        return booster.predict(xgboost.DMatrix(matrix, feature_names=names, nthread=1))

    return kind, raw


def booster_objective(booster: xgboost.Booster) -> str:
    """The objective that a booster was trained for, e.g. `binary:logistic`."""
    return str(json.loads(booster.save_config())["learner"]["learner_train_param"]["objective"])


def _check_columns(model: Any, names: tuple[str, ...]) -> None:
    if not names:
        raise UnsupportedModelError("the model's columns are not named")
    if len(set(names)) != len(names):
        raise UnsupportedModelError("two columns of the model have one name")
    own = (
        model.feature_names
        if isinstance(model, xgboost.Booster)
        else getattr(model, "feature_names_in_", None)
    )
    if own is not None and tuple(own) != names:
        raise UnsupportedModelError(
            "the model was fitted on other columns than feature_cols names, or in another order"
        )
    width = (
        model.num_features() if isinstance(model, xgboost.Booster) else getattr(model, "n_features_in_", None)
    )
    if width is not None and width != len(names):
        raise UnsupportedModelError(
            f"the model was fitted on {width} columns, feature_cols names {len(names)}"
        )
