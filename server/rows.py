"""A question's rows as a matrix in the model's order of columns, and what is remarkable about them.

The hot path: one row of 40 features must cost microseconds, so the work that depends on the names alone
is kept per model and order of names.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from signalserve.common.timeframe import UnknownTimeframeError, timeframe_seconds
from signalserve.predictors.predictor import Predictor
from signalserve.server.errors import NothingToServeError, RequestError
from signalserve.server.question import Matrix, Question

_SHOWN_NAMES = 20
_KEPT_ORDERS = 4096
# (schema hash of the model, names as sent) -> columns to take; None where names and model agree already
_orders: dict[tuple[str, tuple[str, ...]], np.ndarray | None] = {}


def read_rows(question: Question, predictor: Predictor, max_rows: int) -> Matrix:
    """The question's values as a matrix [rows, the model's features], in the model's order.

    Raises:
        RequestError: no names and no hash, both, missing or duplicate names, wrong width, no or too many rows.
        NothingToServeError: the schema hash or the feature set is not the model's.
    """
    if question.feature_set and question.feature_set != predictor.feature_set:
        _check_feature_set(question.feature_set, predictor.feature_set)
    values, columns, schema_hash = question.values, question.columns, question.schema_hash
    if schema_hash:
        if columns:
            raise RequestError(
                "SCHEMA_AMBIGUOUS",
                "give feature_names or schema_hash, not both",
                field="schema_hash",
            )
        if schema_hash != predictor.schema_hash:
            raise NothingToServeError(
                "SCHEMA_MISMATCH",
                "the schema_hash is not that of the model that answers now; send feature_names, or ask GetModel "
                "for its columns",
                field="schema_hash",
                metadata={"schema_hash": schema_hash, "model_schema_hash": predictor.schema_hash},
            )
        return _shape(values, len(predictor.feature_names), max_rows)
    names = tuple(columns)
    if not names:
        raise RequestError(
            "SCHEMA_REQUIRED", "name the columns with feature_names or schema_hash", field="feature_names"
        )
    order = _order(names, predictor)
    matrix = _shape(values, len(names), max_rows)
    return matrix if order is None else np.ascontiguousarray(matrix[:, order])


def _check_feature_set(given: str, known: str) -> None:
    """Equal names don't make equal features; a model whose own set nobody knows takes any."""
    if known:
        raise NothingToServeError(
            "FEATURE_SET_MISMATCH",
            f"the values are of feature set {given}, and the model that answers was trained on {known}; compute "
            "them by that one, or name a model_id of your own",
            field="feature_set",
            metadata={"feature_set": given, "model_feature_set": known},
        )


def _shape(values: Sequence[float] | Matrix, width: int, max_rows: int) -> Matrix:
    count = len(values)
    if count == 0:
        raise RequestError("NO_ROWS", "values is empty: send at least one row", field="values")
    rows, rest = divmod(count, width)
    if rest:
        raise RequestError(
            "WRONG_WIDTH",
            f"values holds {count} numbers, which is no whole number of rows of {width} columns",
            field="values",
            metadata={"values": str(count), "columns": str(width)},
        )
    if rows > max_rows:
        raise RequestError(
            "TOO_MANY_ROWS",
            f"{rows} rows in one request; the limit is {max_rows}: send them in parts",
            field="values",
            metadata={"rows": str(rows), "max_rows": str(max_rows)},
        )
    return np.asarray(values, dtype=np.float64).reshape(rows, width)


def _order(names: tuple[str, ...], predictor: Predictor) -> np.ndarray | None:
    if names == predictor.feature_names:
        return None
    key = (predictor.schema_hash, names)
    try:
        return _orders[key]
    except KeyError:
        pass
    position = {name: index for index, name in enumerate(names)}
    if len(position) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise RequestError(
            "DUPLICATE_FEATURES",
            f"feature names given twice: {_some(twice)}",
            field="feature_names",
            metadata={"duplicates": _some(twice)},
        )
    missing = [name for name in predictor.feature_names if name not in position]
    if missing:
        raise RequestError(
            "MISSING_FEATURES",
            f"{len(missing)} of the model's {len(predictor.feature_names)} features are missing: {_some(missing)}",
            field="feature_names",
            metadata={"missing": _some(missing)},
        )
    order = np.array([position[name] for name in predictor.feature_names])
    if len(_orders) >= _KEPT_ORDERS:
        _orders.clear()
    _orders[key] = order
    return order


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN_NAMES])
    return shown if len(names) <= _SHOWN_NAMES else f"{shown} and {len(names) - _SHOWN_NAMES} more"


def out_of_range(matrix: Matrix, predictor: Predictor) -> bool:
    """Whether a value lies outside the range that the model was trained on."""
    low, high = predictor.feature_min, predictor.feature_max
    if low is None or high is None:
        return False
    # NaN compares false on both sides: a missing value is no extreme one
    return bool(np.count_nonzero((matrix < low) | (matrix > high)))


def stale_bar(event_time: float, timeframe: str, factor: float, now: float) -> bool:
    """Whether a bar's close is older than `factor` bars, or further ahead than one bar; both times are Unix."""
    try:
        seconds = timeframe_seconds(timeframe)
    except UnknownTimeframeError:
        return False  # a name of the registry's that is no length
    age = now - event_time
    return age > factor * seconds or age < -seconds
