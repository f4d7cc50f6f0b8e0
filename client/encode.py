"""From the caller's features to a PredictRequest; what is wrong here is said before anything is sent.

Features are one of:

- a mapping of name to number, or a pandas Series of them: one row;
- a sequence of such mappings, all with the same names: n rows;
- a pandas DataFrame: its rows, its columns' names;
- a row that carries its `feature_names`, and its `feature_set`, as `FeaturePipeline.latest` gives it;
- an array or nested sequence of numbers, [k] for one row or [n, k], with `feature_names=` (k names) or,
  when its columns are exactly the model's in the model's order, with `schema_hash=`.

With named features (all but the last), `feature_names=` picks and orders the columns. NaN and infinite values
pass: whether a model takes them is the server's to say. Text, None and complex numbers do not pass.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from numbers import Real
from operator import index
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from google.protobuf.timestamp_pb2 import Timestamp

from ..v1 import prediction_pb2

Features: TypeAlias = Any
"""What `predict` takes: see the top of this module. pandas is known by its shape alone, never imported."""

Matrix: TypeAlias = npt.NDArray[np.float64]

MAX_VALUE_BYTES = 2**31 - 2**20
"""protobuf holds no message of 2 GiB; the names and ids beside the values get 1 MiB."""

_VALUES_TAG = bytes([prediction_pb2.PredictRequest.VALUES_FIELD_NUMBER << 3 | 2])


def encode_predict(
    symbol: str,
    timeframe: str,
    features: Features,
    model_id: str | None = None,
    *,
    feature_names: Iterable[str] | None = None,
    schema_hash: str | None = None,
    event_time: datetime | None = None,
    request_id: str | None = None,
    sequence: int = 0,
    feature_set: str | None = None,
    min_registry_revision: int | None = None,
) -> prediction_pb2.PredictRequest:
    """Return the request for 1..n rows of `features`.

    Raises TypeError for what is no number or no known form, ValueError for rows of different widths, names
    that do not fit, neither or both of `feature_names` and `schema_hash`, a naive `event_time`, a negative revision,
    over 2 GiB.

    >>> encode_predict("BTCUSDT", "15m", {"rsi_14": 61.5, "atr_14": 0.8}).values
    [61.5, 0.8]
    """
    request, matrix = encode_head(
        symbol,
        timeframe,
        features,
        model_id,
        feature_names=feature_names,
        schema_hash=schema_hash,
        event_time=event_time,
        request_id=request_id,
        sequence=sequence,
        feature_set=feature_set,
        min_registry_revision=min_registry_revision,
    )
    if matrix.nbytes > MAX_VALUE_BYTES:
        raise ValueError(
            f"{matrix.shape[0]} rows of {matrix.shape[1]} values are {matrix.nbytes} bytes, more than a "
            "message can hold (2 GiB); send fewer rows a call"
        )
    put_values(request, matrix)
    return request


def encode_head(
    symbol: str,
    timeframe: str,
    features: Features,
    model_id: str | None = None,
    *,
    feature_names: Iterable[str] | None = None,
    schema_hash: str | None = None,
    event_time: datetime | None = None,
    request_id: str | None = None,
    sequence: int = 0,
    feature_set: str | None = None,
    min_registry_revision: int | None = None,
) -> tuple[prediction_pb2.PredictRequest, Matrix]:
    """Return the request without its values, and the float64 matrix [n, k] of them; errors as `encode_predict`."""
    _require_text("symbol", symbol)
    _require_text("timeframe", timeframe)
    names, matrix = encode_features(features, feature_names, schema_hash)
    request = prediction_pb2.PredictRequest(
        symbol=symbol,
        timeframe=timeframe,
        model_id=model_id or "",
        feature_names=names,
        schema_hash=schema_hash or "",
        event_time=_timestamp(event_time),
        request_id=request_id or "",
        sequence=sequence,
        feature_set=_feature_set(features) if feature_set is None else feature_set,
        min_registry_revision=_revision(min_registry_revision),
    )
    return request, matrix


def put_values(request: prediction_pb2.PredictRequest, matrix: Matrix) -> None:
    """Put the rows into a request that has none."""
    if matrix.size:
        # the wire form of a packed double field is the array's own bytes: one copy instead of n Python floats
        packed = matrix.astype("<f8", copy=False).tobytes()
        request.MergeFromString(_VALUES_TAG + _varint(len(packed)) + packed)


def encode_features(
    features: Features, feature_names: Iterable[str] | None = None, schema_hash: str | None = None
) -> tuple[tuple[str, ...], Matrix]:
    """Return the names (empty when `schema_hash` stands for them) and the float64 matrix [n, k]."""
    chosen = None if feature_names is None else _names(feature_names)
    if chosen is not None and schema_hash:
        raise ValueError("feature_names and schema_hash exclude each other: give one of the two")
    named = _named(features, chosen)
    if named is not None:
        if schema_hash:
            raise ValueError(
                "schema_hash goes with an array in the model's column order; these features carry their own "
                "names: leave schema_hash out"
            )
        return named
    return _plain(features, chosen, schema_hash)


def _named(features: Features, chosen: tuple[str, ...] | None) -> tuple[tuple[str, ...], Matrix] | None:
    """Encode features that carry their names; None where they carry none."""
    if isinstance(features, Mapping):
        return _rows([features], chosen)
    if hasattr(features, "feature_names") and hasattr(features, "__array__"):
        return _columns(features.feature_names, np.asarray(features).reshape(1, -1), chosen)
    if hasattr(features, "columns") and hasattr(features, "to_numpy"):
        return _columns(features.columns, features.to_numpy(), chosen)
    if hasattr(features, "index") and hasattr(features, "to_numpy"):  # a Series, as frame.iloc[-1] gives it
        return _columns(features.index, features.to_numpy().reshape(1, -1), chosen)
    if (
        isinstance(features, Sequence)
        and not isinstance(features, str | bytes)
        and any(isinstance(row, Mapping) for row in features)
    ):
        return _rows(features, chosen)
    return None


def _rows(rows: Sequence[Any], chosen: tuple[str, ...] | None) -> tuple[tuple[str, ...], Matrix]:
    names = chosen if chosen is not None else _names(next(row for row in rows if isinstance(row, Mapping)))
    matrix = np.empty((len(rows), len(names)), dtype=np.float64)
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise TypeError(f"row {number} is a {type(row).__name__}, the others map names to numbers")
        missing = [name for name in names if name not in row]
        if missing or (chosen is None and len(row) != len(names)):
            extra = [] if chosen is not None else [name for name in row if name not in names]
            raise ValueError(f"row {number}: features missing {missing}, not expected {extra}")
        matrix[number] = [
            value if isinstance(value := row[name], float) else _number(value, number, name) for name in names
        ]
    return names, matrix


def _columns(
    columns: Iterable[object], values: npt.NDArray[Any], chosen: tuple[str, ...] | None
) -> tuple[tuple[str, ...], Matrix]:
    names = _names(columns)
    if chosen is None:
        return names, _matrix(values, names)
    missing = [name for name in chosen if name not in names]
    if missing:
        raise ValueError(f"the frame has no column {missing}")
    # only the chosen columns are looked at: a text column that was not asked for is no fault
    return chosen, _matrix(values[:, [names.index(name) for name in chosen]], chosen)


def _plain(
    features: Features, chosen: tuple[str, ...] | None, schema_hash: str | None
) -> tuple[tuple[str, ...], Matrix]:
    if isinstance(features, str | bytes) or not (
        isinstance(features, Sequence) or hasattr(features, "__array__")
    ):
        raise TypeError(
            f"features are a {type(features).__name__}; give a mapping of name to number, a list of them, a "
            "DataFrame, or an array with feature_names= or schema_hash="
        )
    if chosen is None and not schema_hash:
        raise ValueError("an array does not name its columns: give feature_names= or schema_hash=")
    try:
        array = np.asarray(features)
    except ValueError as error:
        raise ValueError("the rows have different widths; every row needs one value a feature") from error
    if array.ndim == 1:
        array = array.reshape(1, -1) if array.size else array.reshape(0, 0)
    if array.ndim != 2:
        raise ValueError(f"features have shape {array.shape}; give [k] for one row or [n, k]")
    if chosen is not None and len(array) and array.shape[1] != len(chosen):
        raise ValueError(f"a row has {array.shape[1]} values, but feature_names has {len(chosen)} names")
    return chosen or (), _matrix(array, chosen)


def _matrix(array: npt.NDArray[Any], names: tuple[str, ...] | None) -> Matrix:
    if array.dtype.kind in "fiub":
        return np.ascontiguousarray(array, dtype=np.float64)
    if array.dtype.kind != "O":
        raise TypeError(f"features are {array.dtype}, not numbers")
    matrix = np.empty(array.shape, dtype=np.float64)
    for (row, column), value in np.ndenumerate(array):
        matrix[row, column] = _number(value, row, names[column] if names else column)
    return matrix


def _number(value: object, row: int, name: object) -> float:
    if isinstance(value, Real | np.bool_):
        try:
            return float(value)
        except OverflowError as error:
            raise ValueError(f"row {row}, feature {name!r}: {value!r:.40} does not fit a double") from error
    hint = "; send math.nan for a missing value" if value is None or type(value).__name__ == "NAType" else ""
    raise TypeError(f"row {row}, feature {name!r}: {value!r:.80} is no number{hint}")


def _names(names: Iterable[object]) -> tuple[str, ...]:
    if isinstance(names, str):
        raise TypeError(f"feature names are the single text {names!r}; give a sequence of names")
    checked: list[str] = []
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"feature name {name!r} is a {type(name).__name__}, not a text")
        checked.append(name)
    if len(set(checked)) != len(checked):
        twice = next(name for place, name in enumerate(checked) if name in checked[:place])
        raise ValueError(f"feature {twice!r} stands more than once; keep one")
    return tuple(checked)


def _feature_set(features: Features) -> str:
    """What the features say of themselves; "" where they say nothing."""
    declared = getattr(features, "feature_set", "") if hasattr(features, "feature_names") else ""
    return declared if isinstance(declared, str) else ""


def _require_text(what: str, value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{what} is a {type(value).__name__}, not a text")


def _revision(value: int | None) -> int:
    if value is None:
        return 0
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"min_registry_revision is {value!r}; give a revision's number")
    if not 0 <= (number := index(value)) < 2**64:
        raise ValueError(f"min_registry_revision is {number}; revisions count from 1, and 0 asks for none")
    return number


def _timestamp(moment: datetime | None) -> Timestamp | None:
    if moment is None:
        return None
    if not isinstance(moment, datetime):
        raise TypeError(f"event_time is a {type(moment).__name__}; give a datetime with its timezone")
    if moment.utcoffset() is None:
        raise ValueError("event_time has no timezone; give e.g. datetime(..., tzinfo=timezone.utc)")
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
