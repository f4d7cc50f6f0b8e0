from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xgboost
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

NAMES = [f"feature_{number}" for number in range(8)]


def training_data() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """X [600, 8] of mixed scales, classes [600], values [600]."""
    random = np.random.default_rng(7)
    X = random.normal(size=(600, 8)) * np.array([1, 10, 1e-4, 1, 100, 1, 1e3, 1])
    signal = X[:, 0] + X[:, 1] / 10 + random.normal(size=600)
    return X, (signal > 0).astype(int), signal * 0.01


def booster(X: np.ndarray, y: np.ndarray, _: np.ndarray) -> xgboost.Booster:
    data = xgboost.DMatrix(X, label=y, feature_names=NAMES)
    return xgboost.train({"objective": "binary:logistic", "max_depth": 4, "nthread": 1}, data, 20)


MODELS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "logreg": lambda X, y, v: LogisticRegression(max_iter=5000).fit(X / X.std(axis=0), y),
    "scaled_logreg": lambda X, y, v: make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y),
    "scaled_rf": lambda X, y, v: make_pipeline(
        StandardScaler(), RandomForestClassifier(10, random_state=0)
    ).fit(X, y),
    "rf": lambda X, y, v: RandomForestClassifier(20, max_depth=6, random_state=0).fit(X, y),
    "extra_trees": lambda X, y, v: ExtraTreesClassifier(20, max_depth=6, random_state=0).fit(X, y),
    "gb": lambda X, y, v: GradientBoostingClassifier(n_estimators=20, random_state=0).fit(X, y),
    "hist_gb": lambda X, y, v: HistGradientBoostingClassifier(max_iter=20, random_state=0).fit(X, y),
    "calibrated_rf": lambda X, y, v: CalibratedClassifierCV(
        RandomForestClassifier(10, max_depth=5, random_state=0), cv=3
    ).fit(X, y),
    "isotonic_logreg": lambda X, y, v: CalibratedClassifierCV(
        LogisticRegression(max_iter=5000), method="isotonic", cv=3
    ).fit(X / X.std(axis=0), y),
    "xgb": lambda X, y, v: xgboost.XGBClassifier(n_estimators=20, max_depth=4, n_jobs=1).fit(X, y),
    "xgb_regressor": lambda X, y, v: xgboost.XGBRegressor(n_estimators=20, max_depth=4, n_jobs=1).fit(X, v),
    "rf_regressor": lambda X, y, v: RandomForestRegressor(10, max_depth=6, random_state=0).fit(X, v),
    "booster": booster,
}


@pytest.fixture(scope="session")
def fitted() -> dict[str, Any]:
    """Every model type, fitted once."""
    X, y, values = training_data()
    return {name: make(X, y, values) for name, make in MODELS.items()}
