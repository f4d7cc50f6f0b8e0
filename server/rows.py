"""A question's rows as a matrix in the model's order of columns, and what is remarkable about them.

The hot path: one row of 40 features must cost microseconds, so the work that depends on the names alone
is kept per model and order of names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from signalserve.common.timeframe import UnknownTimeframeError, timeframe_seconds
from signalserve.predictors.predictor import Predictor
from signalserve.server.errors import NothingToServeError, RequestError
from signalserve.server.limits import ScoringLimits
from signalserve.server.near_names import near_names
from signalserve.server.orders import OrderCache
from signalserve.server.question import Flag, Matrix, Question

_SHOWN_NAMES = 20
_LONGEST_NAME = 256
orders = OrderCache(most_bytes=8 * 1024 * 1024)


def read_rows(question: Question, predictor: Predictor, limits: ScoringLimits) -> Matrix:
    """The question's values as a matrix [rows, the model's features], in the model's order.

    Raises:
        RequestError: no names and no hash, both, too many or too long names, missing or duplicate ones, wrong width, no
            or too many rows.
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
        return _shape(values, len(predictor.feature_names), limits.max_rows)
    if len(columns) > limits.max_features and len(columns) > len(predictor.feature_names):
        raise _too_many(len(columns), max(limits.max_features, len(predictor.feature_names)))
    names = tuple(columns)
    if not names:
        raise RequestError(
            "SCHEMA_REQUIRED", "name the columns with feature_names or schema_hash", field="feature_names"
        )
    order = _order(names, predictor)
    matrix = _shape(values, len(names), limits.max_rows)
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
    if (kept := orders.get(predictor.schema_hash, names)) is not None:
        return kept
    _check_lengths(names, predictor)
    position = {name: index for index, name in enumerate(names)}
    if len(position) != len(names):
        twice = sorted(name for name, count in Counter(names).items() if count > 1)
        raise RequestError(
            "DUPLICATE_FEATURES",
            f"feature names given twice: {_some(twice)}",
            field="feature_names",
            metadata={"duplicates": _some(twice)},
        )
    missing = [name for name in predictor.feature_names if name not in position]
    if missing:
        near = _near_misses(missing, names, predictor)
        raise RequestError(
            "MISSING_FEATURES",
            f"{len(missing)} of the model's {len(predictor.feature_names)} features are missing: {_some(missing)}"
            + (f"; given are: {near}" if near else ""),
            field="feature_names",
            metadata={"missing": _some(missing)} | ({"near_misses": near} if near else {}),
        )
    order = np.array([position[name] for name in predictor.feature_names])
    orders.put(predictor.schema_hash, names, order)
    return order


def _too_many(count: int, most: int) -> RequestError:
    return RequestError(
        "TOO_MANY_FEATURES",
        f"{count} feature names in one request; the limit is {most}: send those that the model takes",
        field="feature_names",
        metadata={"features": str(count), "max_features": str(most)},
    )


def _check_lengths(names: tuple[str, ...], predictor: Predictor) -> None:
    longest = max(names, key=len)
    if len(longest) > _LONGEST_NAME and longest not in predictor.feature_names:
        raise RequestError(
            "NAME_TOO_LONG",
            f"a feature name of {len(longest)} characters; the limit is {_LONGEST_NAME}: {longest[:_LONGEST_NAME]}...",
            field="feature_names",
        )


def _near_misses(missing: list[str], names: tuple[str, ...], predictor: Predictor) -> str:
    """`rsi14 for rsi_14`, where a name that the model has not is almost one that it lacks; empty for none."""
    known = frozenset(predictor.feature_names)
    near = near_names(missing[:_SHOWN_NAMES], (name for name in names if name not in known))
    return ", ".join(f"{given} for {wanted}" for wanted, given in near.items())


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN_NAMES])
    return shown if len(names) <= _SHOWN_NAMES else f"{shown} and {len(names) - _SHOWN_NAMES} more"


def out_of_range(matrix: Matrix, predictor: Predictor) -> tuple[str, ...]:
    """The features with a value outside the range that the model was trained on, at most twenty of them."""
    low, high = predictor.lowest, predictor.highest
    if low is None or high is None:
        return ()
    # NaN compares false on both sides: a missing value is no extreme one
    outside = (matrix < low) | (matrix > high)
    if not np.count_nonzero(outside):
        return ()
    columns = np.flatnonzero(outside.any(axis=0))[:_SHOWN_NAMES]
    return tuple(predictor.feature_names[column] for column in columns)


def bar_flags(event_time: float, timeframe: str, factor: float | None, now: float) -> tuple[Flag, ...]:
    """What a bar's close says of its age: older than `factor` bars (None: never), or more than one bar ahead.

    Both times are Unix.
    """
    try:
        seconds = timeframe_seconds(timeframe)
    except UnknownTimeframeError:
        return ()  # a name of the registry's that is no length
    age = now - event_time
    if age < -seconds:
        return (Flag.FUTURE_BAR,)
    return (Flag.STALE_BAR,) if factor is not None and age > factor * seconds else ()
