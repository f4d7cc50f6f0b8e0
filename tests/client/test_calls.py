import asyncio
import inspect
import threading
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest

from signalserve.client import (
    Aborted,
    AsyncSignalClient,
    Cancelled,
    DeadlineExceeded,
    FailedPrecondition,
    NotFound,
    PredictionRequest,
    Promotion,
    ResourceExhausted,
    SignalClient,
    Unavailable,
)
from signalserve.v1 import prediction_pb2
from tests.client.conftest import error_status

LONG = 20_000
TOKEN = "secret"  # noqa: S105  opens nothing


@pytest.fixture
def client(server):
    with SignalClient(server.target, token=TOKEN, deadline_ms=LONG) as opened:
        yield opened


def test_a_prediction_carries_scores_model_and_flags(client, server):
    moment = datetime(2026, 3, 1, tzinfo=UTC)
    prediction = client.predict("X", "15m", {"a": 0.25, "b": 9.0}, "pinned", event_time=moment)
    assert prediction.score == 0.25
    assert prediction.model_id == "pinned"
    assert (prediction.registry_revision, prediction.flags) == (7, ("STALE_BAR",))
    assert prediction.latency_ms > 0
    assert prediction.served_time is None
    assert server.prediction.requests[0].event_time.ToDatetime(tzinfo=UTC) == moment


@pytest.mark.parametrize("rows", [2, 5000])
def test_many_rows_give_one_score_a_row_and_no_single_score(client, rows):
    frame = pd.DataFrame({"a": np.arange(rows, dtype=float), "b": 0.0})
    prediction = client.predict("X", "15m", frame)
    np.testing.assert_array_equal(prediction.scores, frame["a"].to_numpy())
    assert prediction.scores.dtype == np.float64
    with pytest.raises(ValueError, match="read-only"):
        prediction.scores[0] = 1.0
    with pytest.raises(ValueError, match=f"{rows} rows"):
        _ = prediction.score


def test_bad_features_send_nothing(client, server):
    with pytest.raises(TypeError):
        client.predict("X", "15m", {"a": "text"})
    with pytest.raises(ValueError, match=r"request 1 \('Y', '15m'\)"):
        client.predict_batch(
            [PredictionRequest("X", "15m", {"a": 1.0}), PredictionRequest("Y", "15m", [[1.0]])]
        )
    assert not server.prediction.calls


def test_a_bad_item_of_a_batch_fails_no_other(client):
    keys = ["X", "NOT_FOUND", "Y", "FAILED_PRECONDITION"]
    items = client.predict_batch([PredictionRequest(key, "15m", {"a": 2.5}) for key in keys])
    assert [item.ok for item in items] == [True, False, True, False]
    assert items[0].result().score == 2.5
    assert isinstance(items[1].error, NotFound)
    with pytest.raises(FailedPrecondition, match="WHY_FAILED_PRECONDITION"):
        items[3].result()


def full_at_first(server, times):
    """Refuse the symbol FULL so often, item by item, as a full server does."""
    answer = server.prediction.answer

    def changed(request):
        if request.symbol == "FULL" and server.prediction.calls["PredictBatch"] <= times:
            return error_status("RESOURCE_EXHAUSTED", retry_after=0.02)
        return answer(request)

    server.prediction.answer = changed


def test_items_that_a_full_server_asks_to_send_again_are_and_no_others(client, server):
    full_at_first(server, 2)
    keys = ["FULL", "X", "NOT_FOUND", "FULL"]
    items = client.predict_batch(
        [PredictionRequest(key, "15m", {"a": float(n)}) for n, key in enumerate(keys)]
    )
    assert [item.ok for item in items] == [True, True, False, True]
    assert [items[n].result().score for n in (0, 1, 3)] == [0.0, 1.0, 3.0]
    sent = [[item.symbol for item in request.requests] for request in server.prediction.requests]
    assert sent == [keys, ["FULL", "FULL"], ["FULL", "FULL"]]


@pytest.mark.parametrize(("retry_after", "calls"), [(0.02, 4), (3600.0, 1)])
def test_items_stay_refused_where_the_server_stays_full_or_the_deadline_is_too_near(
    client, server, retry_after, calls
):
    server.prediction.answer = lambda _: error_status("RESOURCE_EXHAUSTED", retry_after=retry_after)
    items = client.predict_batch([PredictionRequest("X", "15m", {"a": 1.0})])
    assert isinstance(items[0].error, ResourceExhausted)
    assert server.prediction.calls["PredictBatch"] == calls


def test_answers_stay_where_the_server_dies_before_the_rest_was_asked_again(client, server):
    answer = server.prediction.answer

    def changed(request):
        if server.prediction.calls["PredictBatch"] > 1:
            raise RuntimeError("as if it crashed")
        return (
            error_status("RESOURCE_EXHAUSTED", retry_after=0.02)
            if request.symbol == "FULL"
            else answer(request)
        )

    server.prediction.answer = changed
    items = client.predict_batch([PredictionRequest(key, "15m", {"a": 1.0}) for key in ("FULL", "X")])
    assert [item.ok for item in items] == [False, True]
    assert isinstance(items[0].error, ResourceExhausted)


async def test_the_async_client_asks_for_items_again_too(server):
    full_at_first(server, 1)
    async with AsyncSignalClient(server.target, deadline_ms=LONG) as client:
        items = await client.predict_batch([PredictionRequest("FULL", "15m", {"a": 1.0})])
    assert items[0].ok


def test_the_token_goes_with_every_call_and_stays_out_of_the_repr(client, server):
    client.predict("X", "15m", {"a": 1.0})
    client.status()
    with client.stream() as stream:
        stream.send("X", "15m", {"a": 1.0})
    assert [sent["authorization"] for sent in server.prediction.metadata] == ["Bearer secret"] * 3
    assert "secret" not in repr(client._endpoint)


def test_a_token_function_is_asked_at_every_call(server):
    tokens = iter(["one", "two\n"])
    with SignalClient(server.target, token=lambda: next(tokens), deadline_ms=LONG) as client:
        client.predict("X", "15m", {"a": 1.0})
        client.predict("X", "15m", {"a": 1.0})
    assert [sent["authorization"] for sent in server.prediction.metadata] == ["Bearer one", "Bearer two"]


def test_a_listing_walks_all_pages_and_keeps_the_unreadable_rows(client, server):
    models = client.list_models("X", "15m", "rf", ["production", "Success"])
    assert [model.model_id for model in models] == [f"m{n}" for n in range(7)]
    assert models.unreadable_rows == ("line 9: seven fields",)
    assert (models[0].status, models[0].sharpe, models[0].cum_return) == ("success", None, None)
    assert [request.page_token for request in server.registry.requests] == ["", "3", "6"]
    assert list(server.registry.requests[2].statuses) == [4, 2]
    with pytest.raises(ValueError, match="there are failed, success, candidate, production, archived"):
        client.list_models(statuses=["live"])


def test_events_fetch_no_page_before_it_is_needed(client, server):
    events = client.events("X", limit=5)
    assert server.registry.calls["ListEvents"] == 0
    first = [next(events) for _ in range(3)]
    assert server.registry.calls["ListEvents"] == 1
    rest = list(events)
    assert [event.revision for event in first + rest] == [7, 6, 5, 4, 3]
    assert server.registry.calls["ListEvents"] == 2
    assert server.registry.requests[0].page_size == 5
    assert first[0].evidence == {"kind": "artefact"}
    assert (first[0].changes[0].from_status, first[0].changes[0].to_status) == ("", "candidate")
    assert len(list(client.events())) == 7
    with pytest.raises(ValueError, match="limit"):
        client.events(limit=0)


def test_a_model_comes_with_features_importances_and_metadata(client):
    details = client.get_model("m1")
    assert (details.model.model_id, details.model.sharpe, details.model.status) == ("m1", 1.5, "production")
    assert details.feature_names == ("a", "b")
    assert details.importances == (("b", 0.75),)
    assert details.metadata == {"random_state": 7}
    with pytest.raises(NotFound):
        client.get_model("gone")


def test_a_promote_tells_no_expectation_from_the_expectation_of_none(client, server):
    result = client.promote("new")
    assert (result.registry_revision, result.served_revision, result.served) == (9, 8, False)
    assert result.transitions[0].previous_model_id == "old"
    client.promote("new", expected_production_model_id="")
    client.promote(["a", Promotion("b", "old")], reason="both", force=True, request_id="id-1")
    plain, none, basket = server.registry.requests
    assert not plain.promotions[0].HasField("expected_production_model_id")
    assert none.promotions[0].HasField("expected_production_model_id")
    assert [item.model_id for item in basket.promotions] == ["a", "b"]
    assert basket.promotions[1].expected_production_model_id == "old"
    assert (basket.reason, basket.force, basket.request_id) == ("both", True, "id-1")
    with pytest.raises(ValueError, match="goes with one model"):
        client.promote(["a", "b"], expected_production_model_id="old")
    with pytest.raises(Aborted, match="WHY_ABORTED"):
        client.promote("new", reason="stale")


@pytest.mark.parametrize(
    "keys", [("X", "15m"), "X/15m", [("X", "15m")], ["X/15m"], (("X", "15m"),)], ids=repr
)
def test_a_key_of_a_rollback_may_be_written_in_each_way(client, server, keys):
    client.rollback(keys, "worse live than in the test")
    sent = server.registry.requests[0]
    assert [(key.symbol, key.timeframe) for key in sent.keys] == [("X", "15m")]
    assert sent.reason == "worse live than in the test"


def test_two_written_keys_are_two_keys_and_a_broken_one_is_refused(client, server):
    client.rollback(("X/15m", "Y_Z/1h"), "why")
    assert [key.symbol for key in server.registry.requests[0].keys] == ["X", "Y_Z"]
    for broken in ("X", ["X"], [("X", "")], [("X", "15m", "rf")]):
        with pytest.raises(ValueError, match="is no key"):
            client.rollback(broken, "why")


def test_status_changing_calls_always_carry_a_request_id(client, server):
    client.promote("m")
    client.rollback(("X", "15m"), "why")
    client.archive("m", "old", allow_unserved=True)
    ids = [request.request_id for request in server.registry.requests]
    assert all(ids)
    assert len(set(ids)) == 3
    assert server.registry.requests[2].allow_unserved


def test_the_status_names_models_and_load_errors(client):
    status = client.status()
    assert (status.registry_revision, status.ready, status.process_id) == (7, True, 11)
    assert status.models[0].model_id == "fake"
    assert status.load_errors[0].message == "digest differs"


def test_a_watch_gives_each_status_and_then_why_it_ended(client):
    seen = []
    with pytest.raises(Unavailable, match="because UNAVAILABLE"):
        for status in client.watch_status():
            seen.append(status.registry_revision)  # noqa: PERF401  what came before the error counts
    assert seen == [1, 2, 3]


def test_a_watch_may_be_left_early(client, server):
    watch = client.watch_status()
    assert next(watch).registry_revision == 1
    watch.close()
    assert client.predict("X", "15m", {"a": 1.0}).score == 1.0


def test_a_call_ends_at_its_deadline(client, server):
    with pytest.raises(DeadlineExceeded):
        client.predict("HANG", "15m", {"a": 1.0}, deadline_ms=60)
    with pytest.raises(DeadlineExceeded):
        client.predict("X", "15m", {"a": 1.0}, deadline_ms=-5)
    assert server.prediction.calls["Predict"] == 1


@pytest.mark.parametrize("deadline_ms", [0, -5, 0.0001])
def test_a_deadline_that_is_no_time_gives_no_answer(client, server, deadline_ms):
    for _ in range(20):
        with pytest.raises(DeadlineExceeded):
            client.predict("X", "15m", {"a": 1.0}, deadline_ms=deadline_ms)
    if deadline_ms <= 0:
        assert server.prediction.calls["Predict"] == 0


@pytest.mark.parametrize("deadline", [float("inf"), float("nan")])
def test_no_call_is_without_a_deadline(client, deadline):
    with pytest.raises(ValueError, match="finite"):
        client.predict("X", "15m", {"a": 1.0}, deadline_ms=deadline)
    with pytest.raises(ValueError, match="deadline_ms"):
        SignalClient("localhost:1", deadline_ms=0)


@pytest.mark.parametrize(
    ("call", "kind", "says"),
    [
        (
            lambda client: client.predict("X", "15m", {"a": 1.0}, deadline_ms="5"),
            TypeError,
            "deadline_ms is '5'",
        ),
        (lambda client: client.stream(deadline_ms="5"), TypeError, "deadline_ms is '5'"),
        (lambda client: SignalClient(client.target, deadline_ms="5"), TypeError, "deadline_ms is '5'"),
        (lambda client: SignalClient(client.target, max_message_mb="5"), TypeError, "max_message_mb is '5'"),
        (
            lambda client: client.predict("X", "15m", {"a": 1.0}, min_registry_revision=-1),
            ValueError,
            "min_registry_revision is -1",
        ),
        (
            lambda client: client.predict("X", "15m", {"a": 1.0}, min_registry_revision="7"),
            TypeError,
            "min_registry_revision is '7'",
        ),
        (
            lambda client: client.predict_batch([("X", "15m", {"a": 1.0})]),
            TypeError,
            r"request 0 is a tuple; give a PredictionRequest\(",
        ),
        (
            lambda client: client.predict_batch(PredictionRequest("X", "15m", {"a": 1.0})),
            TypeError,
            "a batch is a list of PredictionRequest",
        ),
    ],
)
def test_an_argument_that_is_none_is_named_and_nothing_is_sent(client, server, call, kind, says):
    with pytest.raises(kind, match=says):
        call(client)
    assert not server.prediction.calls


def test_a_closed_client_says_so(server):
    client = SignalClient(server.target)
    client.close()
    client.close()
    for call in (client.status, client.stream, lambda: next(client.watch_status())):
        with pytest.raises(RuntimeError, match="closed"):
            call()


def test_close_ends_a_call_under_way_as_cancelled(server):
    client = SignalClient(server.target, deadline_ms=LONG)
    caught: list[BaseException] = []

    def call() -> None:
        try:
            client.predict("HANG", "15m", {"a": 1.0})
        except Cancelled as error:
            caught.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    while not server.prediction.calls["Predict"]:
        client.status()
    client.close()
    thread.join(30)
    assert len(caught) == 1


async def test_the_async_client_makes_every_call(server):
    async with AsyncSignalClient(server.target, token=TOKEN, deadline_ms=LONG) as client:
        await client.wait_ready()
        prediction = await client.predict("X", "15m", [[0.5, 1.0], [0.75, 2.0]], feature_names=["a", "b"])
        assert prediction.scores.tolist() == [0.5, 0.75]
        items = await client.predict_batch(
            [PredictionRequest(k, "15m", {"a": 1.0}) for k in ("X", "ABORTED")]
        )
        assert [item.ok for item in items] == [True, False]
        assert len(await client.list_models()) == 7
        assert (await client.get_model("m1")).metadata == {"random_state": 7}
        assert [event.revision async for event in client.events(limit=4)] == [7, 6, 5, 4]
        assert (await client.status()).version == "0.1.0"
        assert (await client.promote("m")).registry_revision == 9
        assert (await client.rollback("X/15m", "why")).registry_revision == 9
        assert (await client.archive(["m"], "why")).registry_revision == 9
        seen = []
        with pytest.raises(Unavailable):
            async for status in client.watch_status():
                seen.append(status.registry_revision)  # noqa: PERF401  as above
        assert seen == [1, 2, 3]
        with pytest.raises(DeadlineExceeded):
            await client.predict("HANG", "15m", {"a": 1.0}, deadline_ms=60)
    assert all(sent["authorization"] == "Bearer secret" for sent in server.prediction.metadata)
    with pytest.raises(RuntimeError, match="closed"):
        await client.status()


async def test_a_cancelled_task_stays_cancelled_and_a_closed_client_is_an_error(server):
    client = AsyncSignalClient(server.target, deadline_ms=LONG)
    first = asyncio.create_task(client.predict("HANG", "15m", {"a": 1.0}))
    second = asyncio.create_task(client.predict("HANG", "15m", {"a": 1.0}))
    while server.prediction.calls["Predict"] < 2:
        await client.status()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await client.close()
    with pytest.raises(Cancelled):
        await second


async def test_closing_the_async_client_ends_a_watch_as_cancelled(server):
    server.prediction.hold_watch = True
    client = AsyncSignalClient(server.target, deadline_ms=LONG)
    watch = client.watch_status()
    assert (await anext(watch)).registry_revision == 1
    waiting = asyncio.ensure_future(anext(watch))
    await client.status()
    await client.close()
    with pytest.raises(Cancelled):
        await waiting


def test_both_clients_have_the_same_calls_with_the_same_arguments():
    def face(kind):
        return {
            name: [(p.name, p.default, p.kind) for p in inspect.signature(member).parameters.values()]
            for name, member in vars(kind).items()
            if inspect.isfunction(member) and not name.startswith("_")
        }

    assert face(SignalClient) == face(AsyncSignalClient)


def test_a_prediction_says_what_its_score_is_and_which_features_are_out_of_range(client, server):
    server.prediction.extra = {
        "output": prediction_pb2.PREDICTION_OUTPUT_VALUE,
        "feature_set": "core@1",
        "out_of_range_features": ["rsi_14"],
    }
    prediction = client.predict("X", "15m", {"a": 1.0}, feature_set="core@1", min_registry_revision=7)
    assert (prediction.output, prediction.feature_set) == ("value", "core@1")
    assert prediction.out_of_range_features == ("rsi_14",)
    sent = server.prediction.requests[-1]
    assert (sent.feature_set, sent.min_registry_revision) == ("core@1", 7)
    server.prediction.extra = {}
    with client.stream() as stream:
        stream.send("X", "15m", {"a": 1.0}, feature_set="core@1")
        assert (item := next(stream)).prediction.output == ""
        assert item.prediction.feature_set == ""


def test_reading_a_stream_to_which_nothing_was_sent_ends_at_its_deadline(client):
    with (
        client.stream(deadline_ms=50) as stream,
        pytest.raises(DeadlineExceeded, match="nothing was sent to answer within 50 ms"),
    ):
        next(stream)
    with client.stream(deadline_ms=LONG) as stream:
        helper = threading.Thread(target=stream.send, args=("X", "15m", {"a": 0.5}))
        helper.start()
        assert next(stream).prediction.score == 0.5
        helper.join()


async def test_reading_an_async_stream_to_which_nothing_was_sent_ends_at_its_deadline(server):
    async with (
        AsyncSignalClient(server.target, deadline_ms=LONG) as client,
        client.stream(deadline_ms=50) as stream,
    ):
        with pytest.raises(DeadlineExceeded, match="nothing was sent"):
            await anext(stream)


def test_a_full_server_that_says_when_to_come_again_is_asked_again_and_one_that_does_not_is_not(
    client, server
):
    assert client.predict("FULL", "15m", {"a": 0.5}).score == 0.5
    assert server.prediction.calls["Predict"] == 3
    with pytest.raises(ResourceExhausted):
        client.predict("TOO_LARGE", "15m", {"a": 0.5})
    assert server.prediction.calls["Predict"] == 4
    with pytest.raises(ResourceExhausted):  # it asks for 1.5 s, which the deadline does not have
        client.predict("RESOURCE_EXHAUSTED", "15m", {"a": 0.5}, deadline_ms=1_000)
    assert server.prediction.calls["Predict"] == 5


async def test_an_async_client_asks_a_full_server_again(server):
    async with AsyncSignalClient(server.target, deadline_ms=LONG) as client:
        assert (await client.predict("FULL", "15m", {"a": 0.5})).score == 0.5
    assert server.prediction.calls["Predict"] == 3
