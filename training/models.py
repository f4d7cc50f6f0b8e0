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

`class_weight: balanced` gives both classes the same total weight: by the estimator's own `class_weight`, for xgb
by `scale_pos_weight`, for gb by sample weights. A calibration on top is fitted to the classes as they come, so
it brings the probabilities back to the true base rate; gb's sees the weights too, because scikit-learn hands
them to both. hist_gb is slow with weights: scikit-learn 1.9 takes seconds to bin 40 weighted columns.

`calibration: sigmoid | isotonic` puts any type but calibrated_rf, which has its own, into a CalibratedClassifierCV
of three folds that go forward in time: each is calibrated on bars that come after those it was fitted on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
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
from sklearn.utils.class_weight import compute_sample_weight
from xgboost import XGBClassifier

from signalserve.training.errors import TrainingRequestError

Params = Mapping[str, Any]
_Builder = Callable[[Params, int, int, bool], Any]

_CALIBRATION_FOLDS = 3


def build_model(
    model_type: str,
    params: Params,
    *,
    seed: int,
    embargo: int = 0,
    balanced: bool = False,
    calibration: str = "none",
) -> Any:
    """Make an unfitted estimator with `fit(X [n, k], y [n])` and `predict_proba(X) -> [n, 2]`.

    Args:
        model_type: a name of the table above; upper and lower case are the same.
        params: the estimator's own parameters.
        seed: `random_state`, unless the parameters set it.
        embargo: labelled rows left out before each calibration fold.
        balanced: weigh the classes, where the estimator can; `fit_model` does it for the others.
        calibration: none, sigmoid or isotonic.

    Raises:
        TrainingRequestError: the type or a parameter is unknown.
    """
    name = canonical_type(model_type)
    builder = _BUILDERS.get(name)
    if builder is None:
        raise TrainingRequestError(f"no model type {model_type!r}; there are {', '.join(MODEL_TYPES)}")
    model = builder(params, seed, embargo, balanced)
    if calibration == "none" or name == "calibrated_rf":
        return model
    return _calibrated(model, calibration, _CALIBRATION_FOLDS, embargo)


def fit_model(
    model: Any, rows: NDArray[np.float64], classes: NDArray[np.float64], *, balanced: bool = False
) -> None:
    """Fit what `build_model` made on `rows` [n, k] with `classes` [n] of 0.0 and 1.0.

    It is fitted on a plain array: names live in meta.json, and a model that remembers them as well would warn
    at each array that it scores.
    """
    target = classes.astype(np.int64)
    inner = model.estimator if isinstance(model, CalibratedClassifierCV) else model
    weights: NDArray[np.float64] | None = None
    if balanced and isinstance(inner, XGBClassifier) and inner.scale_pos_weight is None:
        inner.set_params(scale_pos_weight=float((target == 0).sum()) / max(1, int((target == 1).sum())))
    elif balanced and isinstance(inner, GradientBoostingClassifier):
        weights = compute_sample_weight("balanced", target)
    if weights is None:
        model.fit(rows, target)
    else:
        model.fit(rows, target, sample_weight=weights)


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


def _weight(balanced: bool) -> dict[str, Any]:
    return {"class_weight": "balanced"} if balanced else {}


def _calibrated(model: Any, method: str, folds: int, embargo: int) -> Any:
    forward = TimeSeriesSplit(n_splits=folds, gap=embargo)
    return CalibratedClassifierCV(model, method=method, cv=forward)


def _logreg(params: Params, seed: int, embargo: int, balanced: bool) -> Any:
    del embargo
    own = _make(LogisticRegression, params, random_state=seed, max_iter=1000, **_weight(balanced))
    return make_pipeline(StandardScaler(), own)


def _rf(params: Params, seed: int, embargo: int, balanced: bool) -> Any:
    del embargo
    return _make(RandomForestClassifier, params, random_state=seed, n_jobs=1, **_weight(balanced))


def _extra_trees(params: Params, seed: int, embargo: int, balanced: bool) -> Any:
    del embargo
    return _make(ExtraTreesClassifier, params, random_state=seed, n_jobs=1, **_weight(balanced))


def _gb(params: Params, seed: int, embargo: int, balanced: bool) -> Any:
    del embargo, balanced
    return _make(GradientBoostingClassifier, params, random_state=seed)


def _hist_gb(params: Params, seed: int, embargo: int, balanced: bool) -> Any:
    del embargo
    return _make(
        HistGradientBoostingClassifier, params, random_state=seed, early_stopping=False, **_weight(balanced)
    )


def _xgb(params: Params, seed: int, embargo: int, balanced: bool) -> Any:
    del embargo, balanced
    return _make(XGBClassifier, params, random_state=seed, n_jobs=1, tree_method="hist")


def _calibrated_rf(params: Params, seed: int, embargo: int, balanced: bool) -> Any:
    forest = _make(
        RandomForestClassifier,
        params,
        extra_names=("method", "cv"),
        random_state=seed,
        n_jobs=1,
        **_weight(balanced),
    )
    folds = params.get("cv", 3)
    if not isinstance(folds, int) or folds < 2:
        raise TrainingRequestError(f"calibrated_rf: cv is a number of folds from 2 up, not {folds!r}")
    return _calibrated(forest, params.get("method", "sigmoid"), folds, embargo)


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
