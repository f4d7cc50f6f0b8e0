"""Where a model's trees split, in the units of the input columns."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import xgboost
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline

Splits = list[tuple[int, float]]


def split_points(model: Any) -> Splits:
    """(column, threshold) of every split; empty for a model without trees."""
    if isinstance(model, Pipeline):
        return _before_scaling(model, split_points(model.steps[-1][1]))
    if isinstance(model, xgboost.Booster):
        return _booster_splits(model)
    if isinstance(model, xgboost.XGBModel):
        return _booster_splits(model.get_booster())
    found: Splits = []
    for calibrated in getattr(model, "calibrated_classifiers_", ()):
        found += split_points(calibrated.estimator)
    for stage in getattr(model, "_predictors", ()):  # HistGradientBoosting keeps its trees nowhere public
        for tree in stage:
            nodes = tree.nodes
            inner = nodes[nodes["is_leaf"] == 0]
            found += _pairs(inner["feature_idx"], inner["num_threshold"])
    trees = np.ravel(np.array(getattr(model, "estimators_", ()), dtype=object))
    for tree in [model, *trees]:
        grown = getattr(tree, "tree_", None)
        if grown is not None:
            inner = grown.feature >= 0
            found += _pairs(grown.feature[inner], grown.threshold[inner])
    return found


def _pairs(columns: Any, thresholds: Any) -> Splits:
    return [
        (int(column), float(threshold))
        for column, threshold in zip(columns, thresholds, strict=True)
        if np.isfinite(threshold)
    ]


def _booster_splits(booster: xgboost.Booster) -> Splits:
    learner = json.loads(bytes(booster.save_raw("json")))["learner"]
    model = learner["gradient_booster"]
    model = model.get("gbtree", model).get("model", {})  # dart wraps the trees once more; gblinear has none
    found: Splits = []
    for tree in model.get("trees", ()):
        inner = np.array(tree["left_children"]) >= 0
        found += _pairs(np.array(tree["split_indices"])[inner], np.array(tree["split_conditions"])[inner])
    return found


def _before_scaling(pipeline: Pipeline, splits: Splits) -> Splits:
    """Thresholds behind column-wise scalers, taken back through them; none where a step mixes columns."""
    if not splits:
        return []
    width = pipeline.n_features_in_
    rows = np.zeros((len(splits), width))
    for number, (column, threshold) in enumerate(splits):
        rows[number, column] = threshold
    for _, step in reversed(pipeline.steps[:-1]):
        if step == "passthrough":
            continue
        if not isinstance(step, BaseEstimator) or not (
            hasattr(step, "scale_") and hasattr(step, "inverse_transform")
        ):
            return []
        rows = step.inverse_transform(rows)
    return [(column, float(rows[number, column])) for number, (column, _) in enumerate(splits)]
