"""Prediction messages from bytes and to bytes, the large ones piece by piece.

1. A request's values, and an answer's scores, pass as an array where they are many: as packed doubles they need no
   parse.
2. What is unusual in any way (values in several places or not packed) is protobuf's to read; the question is the same.
3. An item that protobuf can't read is refused alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from google.protobuf.message import DecodeError, Message

from signalserve.server.errors import RequestError
from signalserve.server.question import Answer, Matrix, Question
from signalserve.server.wire.fields import LENGTH, framed, head, top_fields, varint
from signalserve.server.wire.prediction import question_of, response_of
from signalserve.v1 import prediction_pb2

# up to here a message is parsed on the event loop, in far less than a millisecond
INLINE_BYTES = 16 * 1024
INLINE_BATCH_BYTES = 4 * 1024

# below this protobuf is done before we have found the values
_SMALL_BYTES = 4 * 1024
_MANY_SCORES = 256
# converted at a time, with the interpreter's lock held meanwhile
_PIECE = 4096

_VALUES = prediction_pb2.PredictRequest.VALUES_FIELD_NUMBER
_SCORES = prediction_pb2.PredictResponse.SCORES_FIELD_NUMBER
_REQUESTS = prediction_pb2.PredictBatchRequest.REQUESTS_FIELD_NUMBER
_RESULTS = prediction_pb2.PredictBatchResponse.RESULTS_FIELD_NUMBER
_ITEM = prediction_pb2.PredictStreamRequest.REQUEST_FIELD_NUMBER

M = TypeVar("M", bound=Message)


class Received:
    """A request; `values` is what it holds of them where they were not parsed with it, else None."""

    __slots__ = ("request", "values")

    def __init__(self, request: prediction_pb2.PredictRequest, values: Matrix | None = None) -> None:
        self.request = request
        self.values = values

    def question(self) -> Question:
        """What it asks.

        Raises:
            RequestError: the request_id is too long.
        """
        question = question_of(self.request)
        return question if self.values is None else question._replace(values=self.values)


def read_request(content: bytes) -> Received:
    """A PredictRequest.

    Raises:
        RequestError: it is none.
    """
    if len(content) <= _SMALL_BYTES:
        return Received(parsed(prediction_pb2.PredictRequest.FromString, content))
    values = [field for field in top_fields(content) or () if field.number == _VALUES]
    if len(values) == 1 and values[0].kind == LENGTH and (values[0].end - values[0].value) % 8 == 0:
        (found,) = values
        rest = content[: found.start] + content[found.end :]
        count = (found.end - found.value) // 8
        array = np.frombuffer(content, "<f8", count, found.value)
        # a copy: the numbers may lie at any address, and some libraries want theirs aligned
        return Received(parsed(prediction_pb2.PredictRequest.FromString, rest), array.astype(np.float64))
    request = parsed(prediction_pb2.PredictRequest.FromString, content)
    return Received(request, _array(request.values) if len(request.values) > _PIECE else None)


def read_question(content: bytes) -> Question:
    """What a PredictRequest asks.

    Raises:
        RequestError: it is none, or the request_id is too long.
    """
    return read_request(content).question()


def read_stream_request(content: bytes) -> Received:
    """The request in a PredictStreamRequest.

    Raises:
        RequestError: it is none.
    """
    if len(content) > _SMALL_BYTES:
        fields = top_fields(content)
        if fields is not None and [(field.number, field.kind) for field in fields] == [(_ITEM, LENGTH)]:
            return read_request(content[fields[0].value : fields[0].end])
    return Received(parsed(prediction_pb2.PredictStreamRequest.FromString, content).request)


def batch_items(content: bytes) -> Sequence[bytes]:
    """The requests of a PredictBatchRequest, not parsed.

    Raises:
        RequestError: it is none.
    """
    fields = top_fields(content)
    if fields is None:
        batch = parsed(prediction_pb2.PredictBatchRequest.FromString, content)
        return [item.SerializeToString() for item in batch.requests]
    return [
        content[field.value : field.end]
        for field in fields
        if field.number == _REQUESTS and field.kind == LENGTH
    ]


def response_bytes(answer: Answer) -> bytes:
    """The PredictResponse of an answer."""
    scores = answer.scores
    if len(scores) <= _MANY_SCORES:
        return response_of(answer).SerializeToString()
    rest = response_of(answer._replace(scores=scores[:0])).SerializeToString()
    packed = np.ascontiguousarray(scores, dtype="<f8")
    return b"".join((rest, head(_SCORES, packed.nbytes), packed.tobytes()))


def batch_result(answer: Answer) -> bytes:
    """An answer as a field of a PredictBatchResponse."""
    number = prediction_pb2.PredictBatchResult.RESPONSE_FIELD_NUMBER
    return framed(_RESULTS, framed(number, response_bytes(answer)))


def batch_error(status: Message) -> bytes:
    """A google.rpc.Status as a field of a PredictBatchResponse."""
    number = prediction_pb2.PredictBatchResult.ERROR_FIELD_NUMBER
    return framed(_RESULTS, framed(number, status.SerializeToString()))


def stream_result(sequence: int, response: bytes) -> bytes:
    """A PredictStreamResponse with an answer."""
    number = prediction_pb2.PredictStreamResponse.RESPONSE_FIELD_NUMBER
    return _sequence(sequence) + framed(number, response)


def stream_error(sequence: int, status: Message) -> bytes:
    """A PredictStreamResponse with a google.rpc.Status."""
    number = prediction_pb2.PredictStreamResponse.ERROR_FIELD_NUMBER
    return _sequence(sequence) + framed(number, status.SerializeToString())


def parsed(parse: Callable[[bytes], M], content: bytes) -> M:
    """A message.

    Raises:
        RequestError: the bytes are none.
    """
    try:
        return parse(content)
    except DecodeError as error:
        raise RequestError(
            "MALFORMED_MESSAGE", "the bytes of the request are no message of signalserve.v1"
        ) from error


def _sequence(sequence: int) -> bytes:
    number = prediction_pb2.PredictStreamResponse.SEQUENCE_FIELD_NUMBER
    return varint(number << 3) + varint(sequence) if sequence else b""


def _array(values: Sequence[float]) -> Matrix:
    array = np.empty(len(values))
    for start in range(0, len(values), _PIECE):
        array[start : start + _PIECE] = values[start : start + _PIECE]
    return array
