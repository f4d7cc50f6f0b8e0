"""What predictions and the serving status answer: frozen values, each built from its message by `from_proto`."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
from google.protobuf.timestamp_pb2 import Timestamp

from ..v1 import prediction_pb2, serving_status_pb2
from .basis import Basis
from .errors import SignalServeError, from_status

_FLAG_PREFIX = "PREDICTION_FLAG_"
_SMALL = 256
_OUTPUTS: dict[int, str] = {
    prediction_pb2.PREDICTION_OUTPUT_PROBABILITY: "probability",
    prediction_pb2.PREDICTION_OUTPUT_VALUE: "value",
}


@dataclass(frozen=True, slots=True)
class Prediction:
    """Scores of one request and the model that gave them.

    `scores`: read-only float64 [n], one a row: probability of class 1, or a regressor's value.
    `flags`: of STALE_MODEL, STALE_BAR, OUT_OF_RANGE, NOT_CURRENT, FUTURE_BAR. `latency_ms`: from the call to its
    answer, seen here. `output`: "probability" or "value"; "" from an older server. `feature_set`: which definition
    computed the features that the model was trained on; "" where that is not known. `out_of_range_features`: what
    OUT_OF_RANGE is about, at most 20 of them.
    """

    scores: npt.NDArray[np.float64] = field(compare=False)
    model_id: str
    model_digest: str
    registry_revision: int
    schema_hash: str
    served_time: datetime | None
    flags: tuple[str, ...]
    sequence: int
    latency_ms: float
    output: str = ""
    feature_set: str = ""
    out_of_range_features: tuple[str, ...] = ()

    @property
    def score(self) -> float:
        """The score of a one-row request; ValueError where there are more rows."""
        if len(self.scores) != 1:
            raise ValueError(f"the prediction has {len(self.scores)} rows; use .scores")
        return float(self.scores[0])

    @classmethod
    def from_proto(cls, message: prediction_pb2.PredictResponse, latency_ms: float) -> Prediction:
        """Copy the message; `latency_ms` is the caller's measure."""
        count = len(message.scores)
        # one row is quicker by iteration, many rows by the buffer
        if count < _SMALL:
            scores = np.fromiter(message.scores, dtype=np.float64, count=count)
        else:
            scores = np.array(message.scores, dtype=np.float64)
        scores.flags.writeable = False
        return cls(
            scores=scores,
            model_id=message.model_id,
            model_digest=message.model_digest,
            registry_revision=message.registry_revision,
            schema_hash=message.schema_hash,
            served_time=utc_time(message.served_time) if message.HasField("served_time") else None,
            flags=tuple(_flag_name(flag) for flag in message.flags),
            sequence=message.sequence,
            latency_ms=latency_ms,
            output=_OUTPUTS.get(message.output, ""),
            feature_set=message.feature_set,
            out_of_range_features=tuple(message.out_of_range_features),
        )


@dataclass(frozen=True, slots=True)
class BatchItem:
    """One result of a batch: either `prediction` or `error` is set."""

    prediction: Prediction | None
    error: SignalServeError | None

    @property
    def ok(self) -> bool:
        """Whether there is a prediction."""
        return self.error is None

    def result(self) -> Prediction:
        """Return the prediction, or raise the item's error."""
        if self.error is not None:
            raise self.error
        if self.prediction is None:
            raise ValueError("the item has neither a prediction nor an error")
        return self.prediction

    @classmethod
    def from_proto(cls, message: prediction_pb2.PredictBatchResult, latency_ms: float) -> BatchItem:
        """Copy the message; `latency_ms` is that of the whole batch."""
        return cls(*_either(message, latency_ms))


@dataclass(frozen=True, slots=True)
class StreamItem(BatchItem):
    """One answer of a stream: a BatchItem with the sequence of its request, for errors too.

    An error with `retry_after` did nothing: send the request again after so many seconds, if it still matters then. The
    stream does not by itself, since the answers behind it would have to wait for it.
    """

    sequence: int

    @classmethod
    def from_proto(  # type: ignore[override]  # a stream's answer is another message than a batch's result
        cls, message: prediction_pb2.PredictStreamResponse, latency_ms: float
    ) -> StreamItem:
        """Copy the message; `latency_ms` runs from `send` to the answer's arrival."""
        return cls(*_either(message, latency_ms), sequence=message.sequence)


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One key's model as a server has it loaded.

    `stale`: it is older than `ml.max_model_age`; `stale_time`: when it became or becomes so, in UTC.
    `wanted_model_id`: the model that the registry has for the key, where the server could not load it. `basis`: what it
    was let in on; None for a pinned one that never was, and of an older server.
    """

    symbol: str
    timeframe: str
    model_id: str
    model_digest: str
    schema_hash: str
    engine: str
    engine_reason: str
    pinned: bool
    stale: bool
    stale_time: datetime | None
    wanted_model_id: str = ""
    feature_set: str = ""
    basis: Basis | None = None


@dataclass(frozen=True, slots=True)
class LoadError:
    """A model that a server could not load; its key keeps the model it had."""

    symbol: str
    timeframe: str
    model_id: str
    message: str
    registry_revision: int


@dataclass(frozen=True, slots=True)
class LoadingModel:
    """A model that is being loaded."""

    symbol: str
    timeframe: str
    model_id: str


@dataclass(frozen=True, slots=True)
class ServingStatus:
    """What one server process serves. `start_time` in UTC; `warnings` are what is odd and stops nothing.

    `registry_error`: why the server can't follow the registry now; what it serves goes on. `loading`: models that are
    being loaded, their keys answering as before. `worker`: which one on the port, from 0.
    """

    registry_revision: int
    seen_revision: int
    ready: bool
    draining: bool
    models: tuple[ServedModel, ...]
    load_errors: tuple[LoadError, ...]
    start_time: datetime | None
    version: str
    process_id: int
    warnings: tuple[str, ...] = ()
    registry_error: str = ""
    loading: tuple[LoadingModel, ...] = ()
    worker: int = 0

    @classmethod
    def from_proto(cls, message: serving_status_pb2.ServingStatus) -> ServingStatus:
        """Copy the message."""
        return cls(
            registry_revision=message.registry_revision,
            seen_revision=message.seen_revision,
            ready=message.ready,
            draining=message.draining,
            models=tuple(
                ServedModel(
                    symbol=model.symbol,
                    timeframe=model.timeframe,
                    model_id=model.model_id,
                    model_digest=model.model_digest,
                    schema_hash=model.schema_hash,
                    engine=model.engine,
                    engine_reason=model.engine_reason,
                    pinned=model.pinned,
                    stale=model.stale,
                    stale_time=utc_time(model.stale_time) if model.HasField("stale_time") else None,
                    wanted_model_id=model.wanted_model_id,
                    feature_set=model.feature_set,
                    basis=Basis.from_proto(model.basis) if model.HasField("basis") else None,
                )
                for model in message.models
            ),
            load_errors=tuple(
                LoadError(
                    symbol=error.symbol,
                    timeframe=error.timeframe,
                    model_id=error.model_id,
                    message=error.message,
                    registry_revision=error.registry_revision,
                )
                for error in message.load_errors
            ),
            start_time=utc_time(message.start_time) if message.HasField("start_time") else None,
            version=message.version,
            process_id=message.process_id,
            warnings=tuple(message.warnings),
            registry_error=message.registry_error,
            loading=tuple(
                LoadingModel(symbol=item.symbol, timeframe=item.timeframe, model_id=item.model_id)
                for item in message.loading
            ),
            worker=message.worker,
        )


def _either(
    message: prediction_pb2.PredictBatchResult | prediction_pb2.PredictStreamResponse, latency_ms: float
) -> tuple[Prediction | None, SignalServeError | None]:
    if message.HasField("error"):
        return None, from_status(message.error)
    return Prediction.from_proto(message.response, latency_ms), None


def _flag_name(value: prediction_pb2.PredictionFlag.ValueType) -> str:
    try:
        return prediction_pb2.PredictionFlag.Name(value).removeprefix(_FLAG_PREFIX)
    except ValueError:  # a newer server knows more of them
        return f"FLAG_{value}"


def utc_time(stamp: Timestamp) -> datetime:
    """Return the instant with its timezone, UTC."""
    return stamp.ToDatetime(tzinfo=UTC)
