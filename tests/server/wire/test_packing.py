"""Messages that are taken apart by us hold what protobuf finds in them, and what is put together protobuf can read."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator

import grpc
import numpy as np
import pytest
from google.protobuf.message import DecodeError
from google.rpc import status_pb2
from hypothesis import given
from hypothesis import strategies as st

from signalserve.server.errors import RequestError
from signalserve.server.question import Answer, Flag
from signalserve.server.wire import packing
from signalserve.server.wire.fields import framed, top_fields, varint
from signalserve.server.wire.packing import (
    batch_error,
    batch_items,
    batch_result,
    read_request,
    read_stream_request,
    response_bytes,
    stream_error,
    stream_result,
)
from signalserve.server.wire.prediction import response_of
from signalserve.v1 import prediction_pb2
from tests.server.wire.conftest import Server, refusal, request

GOOD = [0.1, 0.2, 0.3, 0.4]


@pytest.fixture(autouse=True, scope="module")
def nothing_is_small() -> Iterator[None]:
    """Every message goes the way of the large ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "_SMALL_BYTES", -1)
        patch.setattr(packing, "_MANY_SCORES", 0)
        patch.setattr(packing, "_PIECE", 3)
        yield


doubles = st.lists(st.floats(width=64, allow_nan=False), max_size=6)
texts = st.text(max_size=4)
requests = st.builds(
    prediction_pb2.PredictRequest,
    symbol=texts,
    timeframe=texts,
    feature_names=st.lists(texts, max_size=3),
    values=doubles,
    sequence=st.integers(0, 2**64 - 1),
)
kinds = st.sampled_from(["varint", "eight", "four", "length", "group"])


@st.composite
def pieces(draw: st.DrawFn) -> bytes:
    """One field on the wire: of any number, of any wire type, well made or not quite."""
    number = draw(st.one_of(st.integers(0, 12), st.integers(0, 2**29)))
    kind = draw(kinds)
    if kind == "varint":
        return varint(number << 3) + draw(
            st.sampled_from([b"\x05", b"\xff\x01", b"\x80\x80\x00", b"\xff" * 9 + b"\x01", b"\xff" * 11])
        )
    if kind == "eight":  # a double that is not packed, where the number is that of the values
        return varint(number << 3 | 1) + struct.pack("<d", draw(st.floats(allow_nan=False)))
    if kind == "four":
        return varint(number << 3 | 5) + b"abcd"
    if kind == "length":
        content = draw(
            st.one_of(st.binary(max_size=20), doubles.map(lambda v: struct.pack(f"<{len(v)}d", *v)))
        )
        return framed(number, content)
    return varint(number << 3 | 3) + draw(st.binary(max_size=3)) + varint(number << 3 | 4)


@st.composite
def contents(draw: st.DrawFn, message: st.SearchStrategy[bytes]) -> bytes:
    """A message among other fields, or cut off, or with a byte changed."""
    parts = [draw(message), *draw(st.lists(pieces(), max_size=3)), draw(st.sampled_from([b"", b"\x32\x00"]))]
    content = b"".join(draw(st.permutations(parts)))
    how = draw(st.sampled_from(["whole", "whole", "cut", "changed"]))
    if how == "cut":
        return content[: draw(st.integers(0, len(content)))]
    if how == "changed" and content:
        at = draw(st.integers(0, len(content) - 1))
        return content[:at] + bytes([draw(st.integers(0, 255))]) + content[at + 1 :]
    return content


def found(received: packing.Received) -> prediction_pb2.PredictRequest:
    """The whole request, its values put back."""
    whole = prediction_pb2.PredictRequest.FromString(received.request.SerializeToString())
    if received.values is not None:
        del whole.values[:]
        whole.values.extend(received.values.tolist())
    return whole


def same(ours: prediction_pb2.PredictRequest, theirs: prediction_pb2.PredictRequest) -> bool:
    """Equal, a NaN being equal to itself."""
    mine, other = list(ours.values), list(theirs.values)
    for message in (ours, theirs):
        del message.values[:]
    return ours == theirs and np.array_equal(mine, other, equal_nan=True)


@given(contents(requests.map(lambda message: message.SerializeToString())))
def test_a_request_is_read_as_protobuf_reads_it(content: bytes) -> None:
    try:
        expected = prediction_pb2.PredictRequest.FromString(content)
    except DecodeError:
        with pytest.raises(RequestError):
            read_request(content)
        return
    assert same(found(read_request(content)), expected)


@given(contents(requests.map(lambda message: framed(1, message.SerializeToString()))))
def test_a_stream_s_request_is_read_as_protobuf_reads_it(content: bytes) -> None:
    try:
        expected = prediction_pb2.PredictStreamRequest.FromString(content).request
    except DecodeError:
        with pytest.raises(RequestError):
            read_stream_request(content)
        return
    assert same(found(read_stream_request(content)), expected)


@given(
    contents(
        st.lists(requests, max_size=4).map(
            lambda items: prediction_pb2.PredictBatchRequest(requests=items).SerializeToString()
        )
    )
)
def test_a_batch_is_taken_apart_as_protobuf_does_it(content: bytes) -> None:
    try:
        expected = prediction_pb2.PredictBatchRequest.FromString(content).requests
    except DecodeError:
        # refused as a whole; or what is whole around its items is taken apart, and an item that is none fails alone
        if top_fields(content) is None:
            with pytest.raises(RequestError):
                batch_items(content)
        return
    items = batch_items(content)
    assert len(items) == len(expected)
    for item, message in zip(items, expected, strict=True):
        assert same(found(read_request(item)), message)


@given(st.binary(max_size=40))
def test_fields_lie_side_by_side_from_the_first_byte_to_the_last(content: bytes) -> None:
    fields = top_fields(content)
    if fields is not None:
        edges = [0, *(field.end for field in fields)]
        assert [field.start for field in fields] == edges[:-1]
        assert edges[-1] == len(content)


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=300), st.integers(0, 2**63))
def test_an_answer_is_written_as_protobuf_writes_it(scores: list[float], sequence: int) -> None:
    answer = Answer(
        np.array(scores), "m", "d", "h", 7, 1_700_000_000_123_456_789, (Flag.STALE_BAR,), sequence
    )
    expected = response_of(answer)
    written = response_bytes(answer)
    assert prediction_pb2.PredictResponse.FromString(written) == expected
    error = status_pb2.Status(code=13, message="no")
    batch = batch_result(answer) + batch_error(error) + batch_result(answer)
    assert prediction_pb2.PredictBatchResponse.FromString(batch) == prediction_pb2.PredictBatchResponse(
        results=[{"response": expected}, {"error": error}, {"response": expected}]  # type: ignore[list-item]  # protobuf takes both
    )
    for streamed, message in (
        (
            stream_result(sequence, written),
            prediction_pb2.PredictStreamResponse(sequence=sequence, response=expected),
        ),
        (stream_error(sequence, error), prediction_pb2.PredictStreamResponse(sequence=sequence, error=error)),
    ):
        assert prediction_pb2.PredictStreamResponse.FromString(streamed) == message


@pytest.mark.parametrize("rows", [1, 100, 5_000])
def test_values_packed_in_one_piece_in_several_or_not_at_all_get_the_same_scores(
    server: Server, rows: int
) -> None:
    values = np.tile(GOOD, rows)
    message = request(values)
    content = message.SerializeToString()
    rest = request([]).SerializeToString()
    half = len(values) // 2
    loose = b"".join(varint(6 << 3 | 1) + struct.pack("<d", value) for value in values)
    pieces = framed(6, values[:half].tobytes()) + rest + framed(6, values[half:].tobytes())
    call = server.channel.unary_unary("/signalserve.v1.PredictionService/Predict")
    answers = [
        list(prediction_pb2.PredictResponse.FromString(call(asked)).scores)
        for asked in (content, rest + loose, pieces)
    ]
    assert len(answers[0]) == rows
    assert all(math.isfinite(score) for score in answers[0])
    assert answers[0] == answers[1] == answers[2]


@pytest.mark.parametrize("filling", [0, 100_000])
def test_bytes_that_are_no_message_are_refused(server: Server, filling: int) -> None:
    broken = request(np.zeros(filling)).SerializeToString() + b"\xff"
    for method in ("Predict", "PredictBatch"):
        call = server.channel.unary_unary(f"/signalserve.v1.PredictionService/{method}")
        error = refusal(call, broken)
        assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_MESSAGE")
    # of a batch and of a stream the item alone
    good = request(GOOD).SerializeToString()
    batch = server.channel.unary_unary("/signalserve.v1.PredictionService/PredictBatch")
    results = prediction_pb2.PredictBatchResponse.FromString(
        batch(framed(1, good) + framed(1, broken) + framed(1, good))
    ).results
    assert [result.error.code for result in results] == [0, 3, 0]
    stream = server.channel.stream_stream("/signalserve.v1.PredictionService/PredictStream")
    asked = iter([framed(1, good), framed(1, broken), framed(1, good)])
    answers = [prediction_pb2.PredictStreamResponse.FromString(content) for content in stream(asked)]
    assert [answer.error.code for answer in answers] == [0, 3, 0]
