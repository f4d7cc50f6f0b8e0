"""A fitted model as ONNX bytes."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import onnx
import xgboost
from onnxmltools import convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType as XgbFloat
from onnxmltools.convert.xgboost.operator_converters.XGBoost import convert_xgboost as xgboost_operator
from skl2onnx import convert_sklearn, update_registered_converter
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType
from skl2onnx.common.shape_calculator import (
    calculate_linear_classifier_output_shapes,
    calculate_linear_regressor_output_shapes,
)
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)

from signalserve.predictors.kinds import Kind

INPUT = "X"
# the newest that onnxmltools 1.16 writes
OPSET = {"": 15, "ai.onnx.ml": 3}

_COMPARES_FLOAT32 = (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    xgboost.XGBModel,
    xgboost.Booster,
)

update_registered_converter(
    xgboost.XGBClassifier,
    "XGBClassifier",
    calculate_linear_classifier_output_shapes,
    xgboost_operator,
    options={"nocl": [True, False], "zipmap": [True, False, "columns"]},
)
update_registered_converter(
    xgboost.XGBRegressor, "XGBRegressor", calculate_linear_regressor_output_shapes, xgboost_operator
)


def conversions(model: Any, width: int, kind: Kind) -> Iterator[tuple[str, bytes]]:
    """(input type, ONNX bytes) of each form that may fit, the likeliest first; what can't be made raises.

    Trees of scikit-learn and xgboost compare float32; what is computed in float64 gets a float64 graph first.
    """
    doubles = ("float32", "float64") if isinstance(model, _COMPARES_FLOAT32) else ("float64", "float32")
    last: Exception | None = None
    for dtype in doubles:
        if isinstance(model, xgboost.XGBModel | xgboost.Booster) and dtype == "float64":
            continue
        try:
            with _quiet():
                content = _convert(model, width, kind, dtype)
        except Exception as error:  # noqa: BLE001 - the converters raise whatever they meet
            last = error
            continue
        yield dtype, content
    if last is not None:
        raise last


def _convert(model: Any, width: int, kind: Kind, dtype: str) -> bytes:
    if isinstance(model, xgboost.XGBModel | xgboost.Booster):
        graph = convert_xgboost(
            _plain_booster(model), initial_types=[(INPUT, XgbFloat([None, width]))], target_opset=OPSET[""]
        )
    else:
        tensor = DoubleTensorType if dtype == "float64" else FloatTensorType
        graph = convert_sklearn(
            model,
            name="signalserve",
            initial_types=[(INPUT, tensor([None, width]))],
            options={"zipmap": False} if kind == "classifier" else None,
            target_opset=OPSET,
        )
    wanted = graph.graph.output[-1].name
    for output in list(graph.graph.output):
        if output.name != wanted:  # the label: nobody asks for it
            graph.graph.output.remove(output)
    for node in graph.graph.node:
        for attribute in [one for one in node.attribute if one.name == "nodes_hitrates"]:
            node.attribute.remove(attribute)  # a hint that ONNX Runtime keeps in memory and never reads
    graph.graph.name, graph.doc_string = "signalserve", ""
    onnx.checker.check_model(graph)
    return bytes(graph.SerializeToString(deterministic=True))


def _plain_booster(model: Any) -> Any:
    """A copy as the converter wants it: columns without names, and only the trees that predict."""
    copied = copy.deepcopy(model)
    booster = copied if isinstance(copied, xgboost.Booster) else copied.get_booster()
    if isinstance(copied, xgboost.XGBModel):
        best = booster.attr("best_iteration")
        if best is not None:
            booster = booster[: int(best) + 1]
            copied._Booster = booster
    booster.feature_names = None
    booster.feature_types = None
    return copied


@contextmanager
def _quiet() -> Iterator[None]:
    """The converters warn about their own libraries; none of it is for our caller."""
    logging.getLogger("skl2onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
