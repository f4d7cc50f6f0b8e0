"""A matrix over the limit of a message goes in parts, and its answer is that of one model."""

import numpy as np
import pytest

from signalserve.client import (
    Aborted,
    AsyncSignalClient,
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
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
    np.testing.assert_allclose(prediction.scores, fitted(0).predict_proba(X)[:, 1], atol=1e-6)
