"""From the arguments of a call to its message; both clients send exactly these."""

import math
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from numbers import Real
from typing import TypeAlias

from ..v1 import prediction_pb2, registry_pb2
from .encode import Features, encode_predict
from .registry_values import status_value

DEADLINE_MS = 250.0
"""Of a prediction, unless the client or the call says otherwise."""
READ_DEADLINE_MS = 5_000.0
"""Of reads: a page of models or events, a model, the status."""
WRITE_DEADLINE_MS = 30_000.0
"""Of calls that change the registry: they verify artefacts and wait until the new model is served."""
STREAM_DEADLINE_MS = 5_000.0
"""Of each answer of a stream, from its send."""
PAGE_SIZE = 500
MESSAGE_MB = 64.0
"""Of a prediction's request: a server's `server.max_message_mb`, unless it is set otherwise there."""

_SEQUENCE = 11
"""Bytes at most that a request of a stream gets with its number."""

Key: TypeAlias = tuple[str, str] | str
"""(symbol, timeframe), or "BTCUSDT/15m"."""


@dataclass(frozen=True, slots=True)
class PredictionRequest:
    """One item of a batch; the fields are the arguments of `predict`."""

    symbol: str
    timeframe: str
    features: Features
    model_id: str | None = None
    feature_names: Iterable[str] | None = None
    schema_hash: str | None = None
    event_time: datetime | None = None
    request_id: str | None = None
    feature_set: str | None = None
    min_registry_revision: int | None = None

    def to_proto(self) -> prediction_pb2.PredictRequest:
        """Encode it; ValueError and TypeError as `encode_predict` says."""
        return encode_predict(
            self.symbol,
            self.timeframe,
            self.features,
            self.model_id,
            feature_names=self.feature_names,
            schema_hash=self.schema_hash,
            event_time=self.event_time,
            request_id=self.request_id,
            feature_set=self.feature_set,
            min_registry_revision=self.min_registry_revision,
        )


@dataclass(frozen=True, slots=True)
class Promotion:
    """One model of a basket promote.

    `expected_production_model_id`: what must be in production now for the promote to go through; None: not
    checked; "": the key must have nothing in production.
    """

    model_id: str
    expected_production_model_id: str | None = None


def batch_request(
    requests: Iterable[PredictionRequest], most_bytes: int
) -> prediction_pb2.PredictBatchRequest:
    """Encode a batch; an error names the item by its place.

    Raises:
        TypeError: what is given, or an item of it, is no request; or as `encode_predict` says.
        ValueError: the batch is more than `most_bytes`, which the text says how many fit into; or as
            `encode_predict` says.
    """
    if isinstance(requests, PredictionRequest):
        raise TypeError("a batch is a list of PredictionRequest, and this is a single one")
    batch = prediction_pb2.PredictBatchRequest()
    total = fitting = 0
    for place, item in enumerate(requests):
        if not isinstance(item, PredictionRequest):
            raise TypeError(
                f"request {place} is a {type(item).__name__}; give a PredictionRequest(symbol, timeframe, features)"
            )
        try:
            message = item.to_proto()
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"request {place} ({item.symbol!r}, {item.timeframe!r}): {error}") from error
        size = _nested(message.ByteSize())
        if size > most_bytes:
            raise ValueError(
                f"request {place} ({item.symbol!r}, {item.timeframe!r}) is {_too_large(size, most_bytes)}"
            )
        total += size
        if total <= most_bytes:  # else it will not be sent
            batch.requests.append(message)
            fitting = place + 1
    if total > most_bytes:
        raise ValueError(
            f"{place + 1} requests are {_megabytes(total)}, and a message holds {_megabytes(most_bytes)}"
            f" (max_message_mb): the first {fitting} of them fit, send the rest in further batches"
        )
    return batch


def stream_request(
    symbol: str,
    timeframe: str,
    features: Features,
    model_id: str | None,
    feature_names: Iterable[str] | None,
    schema_hash: str | None,
    event_time: datetime | None,
    request_id: str | None,
    sequence: int | None,
    feature_set: str | None,
    min_registry_revision: int | None,
    most_bytes: int,
) -> prediction_pb2.PredictStreamRequest:
    """Encode one request of a stream; without a sequence of its own it gets the stream's.

    ValueError where it is more than `most_bytes`, and as `encode_predict` says.
    """
    message = prediction_pb2.PredictStreamRequest(
        request=encode_predict(
            symbol,
            timeframe,
            features,
            model_id,
            feature_names=feature_names,
            schema_hash=schema_hash,
            event_time=event_time,
            request_id=request_id,
            sequence=sequence or 0,
            feature_set=feature_set,
            min_registry_revision=min_registry_revision,
        )
    )
    if (size := message.ByteSize() + _SEQUENCE) > most_bytes:
        raise ValueError(f"the request is {_too_large(size, most_bytes)}")
    return message


def list_request(
    symbol: str | None, timeframe: str | None, model_type: str | None, statuses: str | Iterable[str]
) -> registry_pb2.ListModelsRequest:
    """Encode the filter of a listing."""
    names = (statuses,) if isinstance(statuses, str) else statuses
    return registry_pb2.ListModelsRequest(
        symbol=symbol or "",
        timeframe=timeframe or "",
        model_type=model_type or "",
        statuses=[status_value(name) for name in names],
        page_size=PAGE_SIZE,
    )


def events_request(
    symbol: str | None, timeframe: str | None, model_id: str | None, limit: int | None
) -> registry_pb2.ListEventsRequest:
    """Encode the filter of the audit log; pages no longer than `limit`."""
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}; give 1 or more, or None for all")
    return registry_pb2.ListEventsRequest(
        symbol=symbol or "",
        timeframe=timeframe or "",
        model_id=model_id or "",
        page_size=PAGE_SIZE if limit is None else min(PAGE_SIZE, limit),
    )


def promote_request(
    models: str | Promotion | Iterable[str | Promotion],
    expected_production_model_id: str | None,
    reason: str,
    force: bool,
    request_id: str | None,
) -> registry_pb2.PromoteRequest:
    """Encode a promote of one model or a basket; the plain expectation goes with one model alone."""
    many = [models] if isinstance(models, str | Promotion) else list(models)
    promotions = [item if isinstance(item, Promotion) else Promotion(item) for item in many]
    if expected_production_model_id is not None:
        if len(promotions) != 1 or promotions[0].expected_production_model_id is not None:
            raise ValueError(
                "expected_production_model_id goes with one model; in a basket give each model as "
                "Promotion(model_id, expected_production_model_id)"
            )
        promotions = [Promotion(promotions[0].model_id, expected_production_model_id)]
    return registry_pb2.PromoteRequest(
        promotions=[
            registry_pb2.Promotion(
                model_id=item.model_id, expected_production_model_id=item.expected_production_model_id
            )
            for item in promotions
        ],
        reason=reason,
        force=force,
        request_id=request_id or new_request_id(),
    )


def rollback_request(
    keys: Key | Iterable[Key],
    reason: str,
    request_id: str | None,
    expected_production_model_id: str | Iterable[str] | None,
) -> registry_pb2.RollbackRequest:
    """Encode a rollback of one key or many; what is expected in production is one a key, in their order."""
    expected = expected_production_model_id
    return registry_pb2.RollbackRequest(
        keys=[
            registry_pb2.RegistryKey(symbol=symbol, timeframe=timeframe) for symbol, timeframe in _keys(keys)
        ],
        reason=reason,
        request_id=request_id or new_request_id(),
        expected_production_model_ids=[expected] if isinstance(expected, str) else list(expected or ()),
    )


def archive_request(
    model_ids: str | Iterable[str], reason: str, allow_unserved: bool, request_id: str | None
) -> registry_pb2.ArchiveRequest:
    """Encode an archive of one model or many."""
    return registry_pb2.ArchiveRequest(
        model_ids=[model_ids] if isinstance(model_ids, str) else list(model_ids),
        reason=reason,
        allow_unserved=allow_unserved,
        request_id=request_id or new_request_id(),
    )


def new_request_id() -> str:
    """Return an id that no other call has: with it a status-changing call may be repeated."""
    return uuid.uuid4().hex


def seconds(deadline_ms: float) -> float:
    """Return a call's deadline in seconds; one at or below 0 is past, and the call DeadlineExceeded."""
    _require_number("deadline_ms", deadline_ms)
    if not math.isfinite(deadline_ms):
        raise ValueError(f"deadline_ms is {deadline_ms!r}; every call needs a finite number of milliseconds")
    return deadline_ms / 1000.0


def message_bytes(megabytes: float) -> int:
    """Return the limit of a message in bytes; ValueError unless protobuf can hold it."""
    _require_number("max_message_mb", megabytes)
    if not 0.1 <= megabytes <= 2047:
        raise ValueError(f"max_message_mb is {megabytes!r}; give 0.1 to 2047")
    return int(megabytes * 1024 * 1024)


def default_deadline(name: str, deadline_ms: float) -> float:
    """Check a client's default deadline; ValueError unless it is a finite number above zero."""
    _require_number(name, deadline_ms)
    if not (math.isfinite(deadline_ms) and deadline_ms > 0):
        raise ValueError(f"{name} is {deadline_ms!r}; give milliseconds above 0")
    return deadline_ms


def _require_number(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} is {value!r}; give a number")


def _nested(size: int) -> int:
    """Bytes of a message of so many within another one: with its tag and its length."""
    return size + 1 + max(1, (size.bit_length() + 6) // 7)


def _too_large(size: int, most_bytes: int) -> str:
    return (
        f"{_megabytes(size)}, and a message holds {_megabytes(most_bytes)} (max_message_mb): `predict` sends such a"
        " matrix in parts"
    )


def _megabytes(size: int) -> str:
    return f"{size / 1024**2:.4g} MB"


def _keys(keys: Key | Iterable[Key]) -> list[tuple[str, str]]:
    if isinstance(keys, str):
        return [_key(keys)]
    many = list(keys)
    if (
        isinstance(keys, tuple)
        and len(many) == 2
        and all(isinstance(part, str) and "/" not in part for part in many)
    ):
        return [(str(many[0]), str(many[1]))]
    return [_key(key) for key in many]


def _key(key: Key) -> tuple[str, str]:
    parts = tuple(key.rpartition("/")[::2]) if isinstance(key, str) else tuple(key)
    if len(parts) != 2 or not all(isinstance(part, str) and part for part in parts):
        raise ValueError(f"{key!r} is no key; give (symbol, timeframe) or 'BTCUSDT/15m'")
    return parts[0], parts[1]
