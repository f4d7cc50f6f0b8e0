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

from signalserve.predictors.classes import Classes, ClassLabel, classes_of, plain_label
from signalserve.predictors.errors import DeclarationError, UnsupportedModelError
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
    """A fitted model as a function of a matrix [n, k] to scores [n].

    `positive_class` is the declared class 1; None where nothing is declared. `classes` is None for a regressor.
    """

    def __init__(
        self, model: Any, feature_names: Sequence[str], positive_class: ClassLabel | None = None
    ) -> None:
        self.model = model
        self.feature_names = tuple(feature_names)
        _check_columns(model, self.feature_names)
        self.classes = _classes(model, positive_class)
        self.kind, self._raw = _scorer(model, self.feature_names, self.classes)
        self._threads = ThreadpoolController()
        for part in walk(model):
            _one_thread(part)

    def scores(self, matrix: Matrix) -> Matrix:
        """Probability of class 1, or a regressor's value: float64 [n]."""
        # OpenMP's number of threads belongs to the calling thread, so it is set here and not once for all
        with self._threads.limit(limits=1, user_api="openmp"):
            raw = np.asarray(self._raw(matrix))
        if np.iscomplexobj(raw):
            raise TypeError("complex scores")
        return raw.astype(np.float64, copy=False).reshape(-1)

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


def _classes(model: Any, declared: ClassLabel | None) -> Classes | None:
    """The classes of a classifier; None for a regressor."""
    name = type(model).__name__
    if isinstance(model, xgboost.Booster):
        if booster_objective(model) != "binary:logistic":
            return None
        classes = classes_of((0, 1), declared, name)
        if classes.column != 1:
            raise DeclarationError(f"a {name} gives the probability of label 1; positive_class can't be 0")
        return classes
    if not (_is_a(is_classifier, model) or hasattr(model, "predict_proba")):
        return None
    if not hasattr(model, "predict_proba"):
        raise UnsupportedModelError(f"{name} has no predict_proba; wrap it in CalibratedClassifierCV")
    return classes_of(getattr(model, "classes_", ()), declared, name)


def _scorer(
    model: Any, names: tuple[str, ...], classes: Classes | None
) -> tuple[Kind, Callable[[Matrix], Any]]:
    if isinstance(model, xgboost.Booster):
        return _booster_scorer(model)
    named = getattr(model, "feature_names_in_", None) is not None

    def frame(matrix: Matrix) -> Any:
        return pd.DataFrame(matrix, columns=list(names), copy=False) if named else matrix

    if classes is not None:
        column = classes.column
        return "classifier", lambda matrix: model.predict_proba(frame(matrix))[:, column]
    if _is_a(is_regressor, model) or hasattr(model, "predict"):
        return "regressor", lambda matrix: model.predict(frame(matrix))
    raise UnsupportedModelError(f"{type(model).__name__} has neither predict_proba nor predict")


def _is_a(question: Callable[[Any], bool], model: Any) -> bool:
    try:
        return question(model)
    except AttributeError:  # no estimator of scikit-learn: its methods say what it is
        return False


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


def greater_class(model: Any) -> ClassLabel | None:
    """The second of a classifier's two classes, as models were sealed before class 1 was declared; else None."""
    known = [] if isinstance(model, xgboost.Booster) else list(getattr(model, "classes_", ()))
    return plain_label(known[1], type(model).__name__) if len(known) == 2 else None


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
