"""Estimators by model_type, with parameters from `ml.models` of the configuration.

| model_type    | estimator                                                                    |
|---------------|------------------------------------------------------------------------------|
| logreg        | StandardScaler, LogisticRegression                                           |
| rf            | RandomForestClassifier                                                       |
| extra_trees   | ExtraTreesClassifier                                                         |
| gb            | GradientBoostingClassifier                                                   |
| hist_gb       | HistGradientBoostingClassifier; no early stopping, which splits at random    |
| xgb           | XGBClassifier                                                                |
| calibrated_rf | CalibratedClassifierCV over a forest; `method` and `cv` are the calibration's |

Every estimator is seeded and runs on one thread unless its parameters say otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import TimeSeriesSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from xgboost import XGBClassifier

from training.errors import TrainingRequestError

Params = Mapping[str, Any]
_Builder = Callable[[Params, int, int], Any]


def build_model(model_type: str, params: Params, *, seed: int, embargo: int = 0) -> Any:
    """Make an unfitted estimator with `fit(X [n, k], y [n])` and `predict_proba(X) -> [n, 2]`.

    Args:
        model_type: a name of the table above; upper and lower case are the same.
        params: the estimator's own parameters.
        seed: `random_state`, unless the parameters set it.
        embargo: labelled rows left out before each calibration fold (calibrated_rf).

    Raises:
        TrainingRequestError: the type or a parameter is unknown.
    """
    builder = _BUILDERS.get(canonical_type(model_type))
    if builder is None:
        raise TrainingRequestError(f"no model type {model_type!r}; there are {', '.join(MODEL_TYPES)}")
    return builder(params, seed, embargo)


def canonical_type(model_type: str) -> str:
    """The spelling of a model_type that is written to disk."""
    return model_type.strip().lower()


def _make(
    estimator: type[Any],
    params: Params,
    *,
    extra_names: tuple[str, ...] = (),
    **defaults: Any,
) -> Any:
    known = set(estimator().get_params())
    unknown = sorted(set(params) - known - set(extra_names))
    if unknown:
        raise TrainingRequestError(
            f"{estimator.__name__} has no parameter {', '.join(unknown)}; it has {', '.join(sorted(known))}"
        )
    own = {name: value for name, value in params.items() if name not in extra_names}
    return estimator(**{**defaults, **own})


def _logreg(params: Params, seed: int, embargo: int) -> Any:
    del embargo
    return make_pipeline(
        StandardScaler(), _make(LogisticRegression, params, random_state=seed, max_iter=1000)
    )


def _rf(params: Params, seed: int, embargo: int) -> Any:
    del embargo
    return _make(RandomForestClassifier, params, random_state=seed, n_jobs=1)


def _extra_trees(params: Params, seed: int, embargo: int) -> Any:
    del embargo
    return _make(ExtraTreesClassifier, params, random_state=seed, n_jobs=1)


def _gb(params: Params, seed: int, embargo: int) -> Any:
    del embargo
    return _make(GradientBoostingClassifier, params, random_state=seed)


def _hist_gb(params: Params, seed: int, embargo: int) -> Any:
    del embargo
    return _make(HistGradientBoostingClassifier, params, random_state=seed, early_stopping=False)


def _xgb(params: Params, seed: int, embargo: int) -> Any:
    del embargo
    return _make(XGBClassifier, params, random_state=seed, n_jobs=1, tree_method="hist")


def _calibrated_rf(params: Params, seed: int, embargo: int) -> Any:
    forest = _make(RandomForestClassifier, params, extra_names=("method", "cv"), random_state=seed, n_jobs=1)
    folds = params.get("cv", 3)
    if not isinstance(folds, int) or folds < 2:
        raise TrainingRequestError(f"calibrated_rf: cv is a number of folds from 2 up, not {folds!r}")
    # each fold is calibrated on bars that come after those it was fitted on
    forward = TimeSeriesSplit(n_splits=folds, gap=embargo)
    return CalibratedClassifierCV(forest, method=params.get("method", "sigmoid"), cv=forward)


_BUILDERS: dict[str, _Builder] = {
    "logreg": _logreg,
    "rf": _rf,
    "extra_trees": _extra_trees,
    "gb": _gb,
    "hist_gb": _hist_gb,
    "xgb": _xgb,
    "calibrated_rf": _calibrated_rf,
}

MODEL_TYPES = tuple(_BUILDERS)
