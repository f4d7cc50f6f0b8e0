"""PredictRequest <-> Question, Answer <-> PredictResponse.

The hot path: each field of a message is read once, and the values stay in the message until somebody computes.
"""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from signalserve.common.key import Key
from signalserve.server.errors import RequestError
from signalserve.server.question import LONGEST_REQUEST_ID, Answer, Flag, Question
from signalserve.v1 import prediction_pb2

_FLAGS = {
    Flag.STALE_MODEL: prediction_pb2.PREDICTION_FLAG_STALE_MODEL,
    Flag.STALE_BAR: prediction_pb2.PREDICTION_FLAG_STALE_BAR,
    Flag.FUTURE_BAR: prediction_pb2.PREDICTION_FLAG_FUTURE_BAR,
    Flag.NOT_CURRENT: prediction_pb2.PREDICTION_FLAG_NOT_CURRENT,
    Flag.OUT_OF_RANGE: prediction_pb2.PREDICTION_FLAG_OUT_OF_RANGE,
}

_OUTPUTS = {
    "probability": prediction_pb2.PREDICTION_OUTPUT_PROBABILITY,
    "value": prediction_pb2.PREDICTION_OUTPUT_VALUE,
}


def question_of(request: prediction_pb2.PredictRequest) -> Question:
    """What a request asks; its values are not looked at yet.

    Raises:
        RequestError: the request_id is too long.
    """
    if request.request_id:
        check_request_id(request.request_id)
    event_time = None
    if request.HasField("event_time"):
        moment = request.event_time
        event_time = moment.seconds + moment.nanos * 1e-9
    return Question(
        Key(request.symbol, request.timeframe),
        request.values,
        request.feature_names,
        request.schema_hash,
        request.model_id,
        event_time,
        request.sequence,
        request.feature_set,
        request.min_registry_revision,
    )


def check_request_id(request_id: str) -> None:
    """An id is kept, in logs at least: RequestError where it is too long for that."""
    if len(request_id) > LONGEST_REQUEST_ID:
        raise RequestError(
            "INVALID_REQUEST_ID",
            f"request_id has {len(request_id)} characters; the limit is {LONGEST_REQUEST_ID}",
            field="request_id",
        )


def response_of(answer: Answer) -> prediction_pb2.PredictResponse:
    """The message of an answer."""
    (
        scores,
        model_id,
        digest,
        schema_hash,
        revision,
        served_ns,
        flags,
        sequence,
        output,
        feature_set,
        outside,
    ) = answer
    response = prediction_pb2.PredictResponse(
        scores=scores.tolist(),
        model_id=model_id,
        model_digest=digest,
        registry_revision=revision,
        schema_hash=schema_hash,
        sequence=sequence,
        output=_OUTPUTS[output],
        feature_set=feature_set,
    )
    set_time(response.served_time, served_ns)
    if flags:
        response.flags.extend(_FLAGS[flag] for flag in flags)
    if outside:
        response.out_of_range_features.extend(outside)
    return response


def set_time(field: Timestamp, nanoseconds: int) -> None:
    """Write a Unix time into a message's field, in place: half of what a Timestamp that is copied costs."""
    field.seconds, field.nanos = divmod(nanoseconds, 10**9)
