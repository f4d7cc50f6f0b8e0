"""A matrix over the limit of a message goes in parts, and its answer is that of one model."""

import numpy as np
import pytest

from signalserve.client import (
    Aborted,
    AsyncSignalClient,
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    PredictionRequest,
    ResourceExhausted,
    SignalClient,
)
from signalserve.v1 import prediction_pb2
from tests.client.conftest import error_status
from tests.server.conftest import serving
from tests.small_models import NAMES, fitted, register_copy, sealed_template

LONG = 60_000
ROWS = np.arange(120_000, dtype=np.float64).reshape(60_000, 2)  # 0.96 MB


@pytest.fixture
def client(server):
    with SignalClient(server.target, deadline_ms=LONG, max_message_mb=0.25) as opened:
        yield opened


def after_the_first(server, change):
    """Change the answer to every request but the first."""
    answer = server.prediction.answer

    def changed(request):
        return answer(request) if server.prediction.calls["Predict"] == 1 else change(request, answer)

    server.prediction.answer = changed


def test_every_row_has_its_score_and_no_message_is_over_the_limit(client, server):
    prediction = client.predict("X", "15m", ROWS, feature_names=["a", "b"], request_id="mine")
    np.testing.assert_array_equal(prediction.scores, ROWS[:, 0])
    assert not prediction.scores.flags.writeable
    sent = server.prediction.requests
    assert len(sent) == 5
    assert max(request.ByteSize() for request in sent) <= 0.25 * 1024 * 1024
    assert {tuple(request.feature_names) for request in sent} == {("a", "b")}
    assert {request.request_id for request in sent} == {"mine"}


def test_what_fits_goes_as_it_is_in_one(client, server):
    client.predict("X", "15m", ROWS[:4000], feature_names=["a", "b"])
    assert [request.model_id for request in server.prediction.requests] == [""]


def test_the_model_of_the_first_part_answers_all_of_them_whatever_is_promoted_meanwhile(client, server):
    def promoted(request, answer):
        server.prediction.name = "newer"
        return answer(request)

    after_the_first(server, promoted)
    prediction = client.predict("X", "15m", ROWS, feature_names=["a", "b"])
    assert (prediction.model_id, len(prediction.scores)) == ("fake", len(ROWS))
    assert [request.model_id for request in server.prediction.requests] == ["", *["fake"] * 4]
    assert client.predict("X", "15m", {"a": 1.0}).model_id == "newer"


def test_a_model_that_cannot_be_asked_by_name_any_more_fails_the_whole(client, server):
    after_the_first(server, lambda *_: error_status("NOT_FOUND"))
    with pytest.raises(NotFound):
        client.predict("X", "15m", ROWS, feature_names=["a", "b"])
    assert server.prediction.calls["Predict"] == 2


def test_another_artefact_under_the_same_name_fails_the_whole(client, server):
    def retrained(request, answer):
        response = answer(request)
        response.model_digest = "e" * 64
        return response

    after_the_first(server, retrained)
    with pytest.raises(Aborted, match="another artefact"):
        client.predict("X", "15m", ROWS, feature_names=["a", "b"])


def test_the_flags_of_all_parts_are_the_answers(client, server):
    def extreme(request, answer):
        response = answer(request)
        response.flags.append(prediction_pb2.PREDICTION_FLAG_OUT_OF_RANGE)
        response.out_of_range_features.append("b")
        return response

    after_the_first(server, extreme)
    prediction = client.predict("X", "15m", ROWS, feature_names=["a", "b"])
    assert (prediction.flags, prediction.out_of_range_features) == (("STALE_BAR", "OUT_OF_RANGE"), ("b",))


def test_the_deadline_is_that_of_the_whole(client, server):
    def slow(request, answer):
        server.prediction.release.wait(60)
        return answer(request)

    after_the_first(server, slow)
    with pytest.raises(DeadlineExceeded):
        client.predict("X", "15m", ROWS, feature_names=["a", "b"], deadline_ms=1_000)


def test_a_limit_that_is_none_is_refused():
    for wrong in (0, 2048, float("nan")):
        with pytest.raises(ValueError, match="max_message_mb is"):
            SignalClient("localhost:1", max_message_mb=wrong)


@pytest.mark.parametrize(("limits", "megabytes"), [({"max_message_mb": 1}, 1), ({"max_rows": 7_000}, 64)])
async def test_a_real_server_answers_a_matrix_over_its_limits(tmp_path, limits, megabytes):
    register_copy(sealed_template(tmp_path / "template"), tmp_path / "models", "btc")
    X = np.random.default_rng(5).normal(size=(60_000, len(NAMES)))  # 2.4 MB
    async with serving(tmp_path / "models", server=limits) as (_, server):
        target = f"127.0.0.1:{server.port}"
        async with AsyncSignalClient(target, deadline_ms=LONG, max_message_mb=megabytes) as client:
            prediction = await client.predict("BTCUSDT", "15m", X, "btc", feature_names=NAMES)
            with pytest.raises(InvalidArgument, match="MISSING_FEATURES"):
                await client.predict("BTCUSDT", "15m", X[:, :4], "btc", feature_names=NAMES[:4])
            holed = X.copy()
            holed[50_321, 2] = np.nan
            with pytest.raises(InvalidArgument, match=rf"row 50321, {NAMES[2]}: the value is NaN") as told:
                await client.predict("BTCUSDT", "15m", holed, "btc", feature_names=NAMES)
    np.testing.assert_allclose(prediction.scores, fitted(0).predict_proba(X)[:, 1], atol=1e-6)
    error = told.value
    assert (error.reason, error.metadata["row"], error.metadata["column"]) == ("NAN_VALUE", "50321", NAMES[2])
    assert "row 50321," in error.field_violations[0][1]
    assert "row 50321," in error.args[0]


def rows(count):
    return PredictionRequest("X", "15m", ROWS[:count], feature_names=["a", "b"])


def test_a_batch_over_the_limit_is_refused_before_it_is_sent_and_says_how_many_fit(client, server):
    with pytest.raises(
        ValueError, match=r"7 requests are 0\.2672 MB, and a message holds 0\.25 MB"
    ) as refused:
        client.predict_batch([rows(2_500)] * 7)
    assert "the first 6 of them fit" in str(refused.value)
    assert not server.prediction.calls
    assert all(item.ok for item in client.predict_batch([rows(2_500)] * 6))
    with pytest.raises(
        ValueError, match=r"request 1 \('X', '15m'\) is 0\.3052 MB, .* `predict` sends such a matrix"
    ):
        client.predict_batch([rows(1), rows(20_000)])
    assert server.prediction.calls["PredictBatch"] == 1


async def test_a_streams_request_over_the_limit_is_refused_and_the_stream_goes_on(client, server):
    with client.stream() as stream:
        with pytest.raises(ValueError, match="`predict` sends such a matrix in parts"):
            stream.send("X", "15m", ROWS[:20_000], feature_names=["a", "b"])
        stream.send("X", "15m", ROWS[:2], feature_names=["a", "b"])
        assert next(stream).sequence == 1
    async with AsyncSignalClient(server.target, deadline_ms=LONG, max_message_mb=0.25) as twin:
        with pytest.raises(ValueError, match="the first 6 of them fit"):
            await twin.predict_batch([rows(2_500)] * 7)
        async with twin.stream() as stream:
            with pytest.raises(ValueError, match="`predict` sends such a matrix in parts"):
                await stream.send("X", "15m", ROWS[:20_000], feature_names=["a", "b"])


async def test_a_server_that_takes_less_than_the_client_was_told_is_told_of(tmp_path):
    register_copy(sealed_template(tmp_path / "template"), tmp_path / "models", "btc")
    X = np.zeros((60_000, len(NAMES)))
    async with serving(tmp_path / "models", server={"max_message_mb": 1}) as (_, server):
        target = f"127.0.0.1:{server.port}"
        async with AsyncSignalClient(target, deadline_ms=LONG) as client:
            with pytest.raises(
                ResourceExhausted, match=r"the server takes 1 MB .*: give the client max_message_mb"
            ) as told:
                await client.predict("BTCUSDT", "15m", X, "btc", feature_names=NAMES)
    assert told.value.reason == "MESSAGE_TOO_LARGE"
