"""Each bad input has its code, its reason, and a message that says what to do."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType
from typing import Any, TypeVar

import grpc
import numpy as np
import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from signalserve.client import (
    DeadlineExceeded,
    FailedPrecondition,
    InternalError,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    SignalServeError,
    Unavailable,
)
from signalserve.client.errors import from_status
from signalserve.common.key import Key
from signalserve.predictors.schema import schema_hash
from signalserve.server.errors import LateError
from signalserve.server.question import Question
from signalserve.v1 import prediction_pb2, registry_pb2
from tests.server.conftest import settings_of
from tests.server.wire.conftest import NAMES, Registry, Server, refusal, request

HASH = schema_hash(NAMES)
GOOD = [0.1, 0.2, 0.3, 0.4]
C = TypeVar("C")

Case = tuple[dict[str, Any], type[SignalServeError], str, str]

CASES: dict[str, Case] = {
    "unknown symbol": ({"symbol": "NOPE"}, NotFound, "UNKNOWN_KEY", "signalserve models"),
    "unknown timeframe": ({"timeframe": "7h"}, NotFound, "UNKNOWN_KEY", "signalserve models"),
    "unknown model": ({"model_id": "nobody"}, NotFound, "UNKNOWN_MODEL", "signalserve models"),
    "empty symbol": ({"symbol": ""}, InvalidArgument, "INVALID_SYMBOL", "is empty"),
    "empty timeframe": ({"timeframe": ""}, InvalidArgument, "INVALID_TIMEFRAME", "is empty"),
    "path in symbol": ({"symbol": "../etc"}, InvalidArgument, "INVALID_SYMBOL", "path separator"),
    "path in timeframe": ({"timeframe": "..\\x"}, InvalidArgument, "INVALID_TIMEFRAME", "path separator"),
    "long symbol": ({"symbol": "X" * 20_000}, InvalidArgument, "INVALID_SYMBOL", "XXX..."),
    "long model_id": ({"model_id": "ü" * 20_000}, NotFound, "UNKNOWN_MODEL", "no model"),
    "path in model_id": ({"model_id": "../../etc"}, NotFound, "UNKNOWN_MODEL", "no model"),
    "nothing in production": (
        {"symbol": "SOLUSDT"},
        FailedPrecondition,
        "NO_PRODUCTION_MODEL",
        "promote one",
    ),
    "no names, no hash": ({"feature_names": []}, InvalidArgument, "SCHEMA_REQUIRED", "feature_names or"),
    "names and hash": (
        {"feature_names": NAMES, "schema_hash": HASH},
        InvalidArgument,
        "SCHEMA_AMBIGUOUS",
        "not both",
    ),
    "stale hash": (
        {"schema_hash": schema_hash(NAMES[::-1])},
        FailedPrecondition,
        "SCHEMA_MISMATCH",
        "send feature_names, or ask GetModel",
    ),
    "missing name": (
        {"feature_names": NAMES[:3], "values": GOOD[:3]},
        InvalidArgument,
        "MISSING_FEATURES",
        "1 of the model's 4 features are missing: volume_z",
    ),
    "duplicate name": (
        {"feature_names": [*NAMES, NAMES[0]], "values": [*GOOD, 0.1]},
        InvalidArgument,
        "DUPLICATE_FEATURES",
        "given twice: return_1",
    ),
    "many long missing names": (
        {"feature_names": [f"{n}" + "ß" * 250 for n in (1, 1, 2, 2, 3, 3, 4, 4)], "values": [1.0] * 8},
        InvalidArgument,
        "DUPLICATE_FEATURES",
        "given twice",
    ),
    "too long a name": (
        {"feature_names": [*NAMES, "ß" * 257], "values": [*GOOD, 1.0]},
        InvalidArgument,
        "NAME_TOO_LONG",
        "257 characters; the limit is 256",
    ),
    "too many names": (
        {"feature_names": [*NAMES, *map(str, range(4093))], "values": np.zeros(4097)},
        InvalidArgument,
        "TOO_MANY_FEATURES",
        "4097 feature names in one request; the limit is 4096",
    ),
    "too long an id": (
        {"request_id": "x" * 257},
        InvalidArgument,
        "INVALID_REQUEST_ID",
        "257 characters; the limit is 256",
    ),
    "wrong width": ({"values": [*GOOD, 0.5]}, InvalidArgument, "WRONG_WIDTH", "5 numbers"),
    "wrong width by hash": (
        {"schema_hash": HASH, "values": GOOD[:3]},
        InvalidArgument,
        "WRONG_WIDTH",
        "rows of 4 columns",
    ),
    "zero rows": ({"values": []}, InvalidArgument, "NO_ROWS", "at least one row"),
    "NaN": ({"values": [0.1, float("nan"), 0.3, 0.4]}, InvalidArgument, "NAN_VALUE", "rsi_14"),
    "infinite": (
        {"values": [*GOOD, 0.1, 0.2, float("-inf"), 0.4]},
        InvalidArgument,
        "INFINITE_VALUE",
        "row 1, atr_14",
    ),
}


@pytest.fixture(scope="module")
def shared(master: Registry, tmp_path_factory: pytest.TempPathFactory, loop: Any) -> Any:
    """A server that no test of this file changes."""
    copy = master.copied_to(tmp_path_factory.mktemp("shared") / "models")
    server = Server(settings_of(copy.base), loop)
    server.until(lambda status: status.ready)
    yield server
    server.close()


def bad_request(fields: dict[str, Any]) -> prediction_pb2.PredictRequest:
    fields = dict(fields)
    return request(fields.pop("values", GOOD), **fields)


def check(error: SignalServeError, case: Case) -> None:
    _, kind, reason, says = case
    assert (type(error), error.reason, error.domain) == (kind, reason, "signalserve")
    assert says in error.message


@pytest.mark.parametrize("name", CASES)
def test_a_bad_request_is_refused_with_code_reason_and_advice(name: str, shared: Server) -> None:
    check(refusal(shared.prediction.Predict, bad_request(CASES[name][0])), CASES[name])


def test_a_stream_answers_every_bad_request_in_its_place_and_goes_on(shared: Server) -> None:
    messages = [bad_request(case[0]) for case in CASES.values()] + [request(GOOD)]
    for number, message in enumerate(messages):
        message.sequence = number
    answers = list(
        shared.prediction.PredictStream(
            (prediction_pb2.PredictStreamRequest(request=message) for message in messages), timeout=60
        )
    )
    assert [answer.sequence for answer in answers] == list(range(len(messages)))
    for answer, case in zip(answers, CASES.values(), strict=False):
        check(from_status(answer.error), case)
    assert answers[-1].WhichOneof("result") == "response"


def test_one_bad_item_of_a_batch_fails_no_other(shared: Server) -> None:
    items = [request(GOOD)]
    for case in CASES.values():
        items += [bad_request(case[0]), request(GOOD)]
    results = shared.prediction.PredictBatch(
        prediction_pb2.PredictBatchRequest(requests=items), timeout=60
    ).results
    assert len({tuple(result.response.scores) for result in results[::2]}) == 1
    for result, case in zip(results[1::2], CASES.values(), strict=True):
        check(from_status(result.error), case)


def test_field_violations_name_the_field(shared: Server) -> None:
    for fields, field in (
        ({"symbol": ""}, "symbol"),
        ({"values": []}, "values"),
        ({"feature_names": []}, "feature_names"),
        ({"schema_hash": "0" * 64}, "schema_hash"),
    ):
        error = refusal(shared.prediction.Predict, bad_request(fields))
        assert [violation[0] for violation in error.field_violations] == [field]


def test_names_in_another_order_give_the_same_score(shared: Server) -> None:
    straight = shared.prediction.Predict(request(GOOD))
    turned = shared.prediction.Predict(request(GOOD[::-1], feature_names=NAMES[::-1]))
    assert list(turned.scores) == list(straight.scores)


def test_extra_names_are_ignored_whatever_they_hold(shared: Server) -> None:
    extra = request([float("nan"), *GOOD, float("inf")], feature_names=["x", *NAMES, "y"])
    assert shared.prediction.Predict(extra).scores == shared.prediction.Predict(request(GOOD)).scores


def test_a_model_that_takes_nan_gets_it(shared: Server, master: Registry) -> None:
    row = np.array([[np.nan, 0.2, 0.3, np.nan]])
    answer = shared.prediction.Predict(request(row, symbol="SOLUSDT", model_id=master["sol"]))
    assert answer.scores == pytest.approx(master.native("sol", row), abs=1e-6)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.text(max_size=40),
    st.text(max_size=20),
    st.text(max_size=40),
    st.lists(st.sampled_from([*NAMES, "x", ""]), max_size=7),
    st.lists(st.floats(), max_size=12),
    st.sampled_from(["", HASH, "junk"]),
)
def test_no_request_whatever_it_holds_is_an_internal_error(
    shared: Server,
    symbol: str,
    timeframe: str,
    model_id: str,
    names: list[str],
    values: list[float],
    hash_: str,
) -> None:
    for fields in ({"symbol": symbol, "timeframe": timeframe, "model_id": model_id}, {}):
        message = request(values, feature_names=names, schema_hash=hash_, **fields)
        try:
            shared.prediction.Predict(message, timeout=60)
        except grpc.RpcError as error:
            assert error.code() in (
                grpc.StatusCode.INVALID_ARGUMENT,
                grpc.StatusCode.NOT_FOUND,
                grpc.StatusCode.FAILED_PRECONDITION,
            )


def test_more_rows_than_the_limit_are_refused_with_the_limit(
    serve: Callable[..., Server], registry: Registry
) -> None:
    server = serve(registry.base, server={"max_rows": 100})
    assert len(server.prediction.Predict(request(GOOD * 100)).scores) == 100
    error = refusal(server.prediction.Predict, request(GOOD * 101))
    assert (type(error), error.reason) == (InvalidArgument, "TOO_MANY_ROWS")
    assert error.metadata == {"rows": "101", "max_rows": "100"}


def test_ten_million_rows_are_refused_and_the_server_serves_on(
    serve: Callable[..., Server], registry: Registry
) -> None:
    server = serve(registry.base, server={"max_message_mb": 128})
    fields = {"symbol": "BTCUSDT", "feature_names": ["return_1"]}
    error = refusal(server.prediction.Predict, request(np.zeros(10_000_000), **fields))
    assert error.reason == "MISSING_FEATURES"  # said before the numbers are touched
    error = refusal(server.prediction.Predict, request(np.zeros(10_000_000), schema_hash=HASH))
    assert (error.reason, error.metadata["rows"]) == ("TOO_MANY_ROWS", "2500000")
    assert len(server.prediction.Predict(request(GOOD)).scores) == 1


def test_a_message_over_the_limit_is_resource_exhausted_and_the_connection_lives(
    serve: Callable[..., Server], registry: Registry
) -> None:
    server = serve(registry.base, server={"max_message_mb": 1})
    assert isinstance(refusal(server.prediction.Predict, request(GOOD * 40_000)), ResourceExhausted)
    assert len(server.prediction.Predict(request(GOOD)).scores) == 1


def test_a_batch_is_refused_whole_where_it_is_empty_or_too_long(
    serve: Callable[..., Server], registry: Registry
) -> None:
    server = serve(registry.base, server={"max_batch_requests": 2})
    empty = refusal(server.prediction.PredictBatch, prediction_pb2.PredictBatchRequest())
    assert (type(empty), empty.reason) == (InvalidArgument, "NO_REQUESTS")
    three = prediction_pb2.PredictBatchRequest(requests=[request(GOOD)] * 3)
    error = refusal(server.prediction.PredictBatch, three)
    assert (type(error), error.reason) == (InvalidArgument, "TOO_MANY_REQUESTS")


class Counting:
    """A predictor that counts its calls and may be made to wait."""

    def __init__(self, predictor: Any) -> None:
        self._predictor = predictor
        self.calls = 0
        self.entered, self.release = threading.Event(), threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._predictor, name)

    def predict(self, matrix: np.ndarray) -> np.ndarray:
        self.calls += 1
        self.entered.set()
        self.release.wait(60)
        scores: np.ndarray = self._predictor.predict(matrix)
        return scores


def with_counting(server: Server, symbol: str) -> Counting:
    """Put a counting predictor into the snapshot, to be run in the worker threads."""
    return with_predictor(server, symbol, Counting)


def with_predictor(server: Server, symbol: str, kind: Callable[[Any], C]) -> C:
    """Put a predictor around a symbol's own into the snapshot, to be run in the worker threads."""
    assert server.parts is not None
    state = server.parts.state
    snapshot = state.snapshot
    key = next(key for key in snapshot.by_key if key.symbol == symbol)
    model = snapshot.by_key[key]
    counting = kind(model.predictor)
    slow = replace(model, predictor=counting, row_seconds=1.0)  # type: ignore[arg-type]
    state.snapshot = replace(
        snapshot,
        by_key=MappingProxyType({**snapshot.by_key, key: slow}),
        by_id=MappingProxyType({**snapshot.by_id, slow.model_id: slow}),
    )
    return counting


def test_a_deadline_that_is_past_when_the_call_starts_costs_no_work(server: Server) -> None:
    counting = with_counting(server, "BTCUSDT")
    counting.release.set()
    assert server.parts is not None
    scorer = server.parts.scorer
    question = Question(Key("BTCUSDT", "15m"), GOOD, NAMES)

    def same(given: Any) -> Any:
        return given

    async def late(work: Any) -> str:
        with pytest.raises(LateError) as caught:
            await work
        return caught.value.reason

    for work in (
        lambda: scorer.answer(question, 0.0, same),
        lambda: scorer.answer_each([question], -1.0, ask=same, give=same, fail=same),
    ):
        assert server.call_async(late(work())) == "DEADLINE_GONE"
    assert counting.calls == 0
    # on the wire a timeout is whole milliseconds, at least one: the server must not be in time for it
    counting.release.clear()
    assert isinstance(refusal(server.prediction.Predict, request(GOOD), timeout=0.0), DeadlineExceeded)
    counting.release.set()


def test_a_deadline_that_passes_while_a_call_waits_for_a_thread_costs_no_work(server: Server) -> None:
    btc, eth = with_counting(server, "BTCUSDT"), with_counting(server, "ETHUSDT")
    eth.release.set()
    busy = [server.prediction.Predict.future(request(GOOD), timeout=60) for _ in range(4)]
    assert btc.entered.wait(60)
    late = refusal(server.prediction.Predict, request(GOOD, symbol="ETHUSDT"), timeout=0.3)
    assert isinstance(late, DeadlineExceeded)
    btc.release.set()
    assert all(len(call.result().scores) == 1 for call in busy)
    assert server.prediction.Predict(request(GOOD), timeout=60).scores
    assert (btc.calls, eth.calls) == (5, 0)


def test_too_many_calls_in_flight_are_turned_away_and_told_when_to_come_again(
    serve: Callable[..., Server], registry: Registry
) -> None:
    server = serve(registry.base, server={"max_in_flight": 2})
    counting = with_counting(server, "BTCUSDT")
    busy = [server.prediction.Predict.future(request(GOOD), timeout=60) for _ in range(2)]
    while server.call(lambda: server.parts.guard.in_flight) < 2:  # type: ignore[union-attr]
        assert counting.entered.wait(60)
    error = refusal(server.prediction.Predict, request(GOOD))
    assert (type(error), error.reason, error.retry_after) == (ResourceExhausted, "TOO_MANY_IN_FLIGHT", 0.05)
    counting.release.set()
    assert all(len(call.result().scores) == 1 for call in busy)
    assert len(server.prediction.Predict(request(GOOD), timeout=60).scores) == 1


def test_a_fault_of_ours_is_internal_with_an_id_that_is_in_the_log_and_no_exception_text(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(*given: object, **named: object) -> None:
        raise RuntimeError("a secret of ours")

    monkeypatch.setattr("signalserve.server.registry_calls.select", fault)
    with structlog.testing.capture_logs() as lines:
        error = refusal(server.registry.ListModels, registry_pb2.ListModelsRequest())
    assert (type(error), error.reason) == (InternalError, "INTERNAL_ERROR")
    assert "secret" not in error.message
    assert error.metadata["incident"] in error.message
    logged = [line for line in lines if line["event"] == "server.internal_error"]
    assert [line["incident"] for line in logged] == [error.metadata["incident"]]
    assert logged[0]["exc_info"] is not None


def test_a_registry_that_is_damaged_says_so_to_who_asks_for_it_and_goes_on_serving(
    server: Server, registry: Registry
) -> None:
    log = registry.base / "registry_events.jsonl"
    log.write_text(log.read_text().replace("success", "sucess", 1))
    error = refusal(server.registry.ListModels, registry_pb2.ListModelsRequest())
    assert (type(error), error.reason) == (FailedPrecondition, "LOG_CORRUPT")
    assert log.name in error.message
    assert server.prediction.Predict(request(GOOD), timeout=60).scores


def test_before_the_registry_was_read_a_request_is_told_to_come_again(
    serve: Callable[..., Server], registry: Registry
) -> None:
    log = registry.base / "registry_events.jsonl"
    whole = log.read_text()
    log.write_text(whole.replace("success", "sucess", 1))
    server = serve(registry.base, ready=False)
    for fields in ({}, {"model_id": registry["a"]}):
        error = refusal(server.prediction.Predict, request(GOOD, **fields))
        assert (type(error), error.reason, error.retry_after) == (Unavailable, "STARTING", 0.25)
    assert not server.client.status().ready
    shutil.copy(log, log.with_suffix(".broken"))
    log.write_text(whole)
    server.until(lambda status: status.ready)
    assert len(server.prediction.Predict(request(GOOD)).scores) == 1


def test_a_page_that_this_server_never_gave_is_refused(shared: Server) -> None:
    for fields in (
        {"page_size": -1},
        {"page_size": 1001},
        {"page_token": "x"},
        {"page_token": "9" * 5000},
        {"page_token": "٣"},
    ):
        for call, message in (
            (shared.registry.ListModels, registry_pb2.ListModelsRequest(**fields)),
            (shared.registry.ListEvents, registry_pb2.ListEventsRequest(**fields)),
        ):
            error = refusal(call, message)
            assert (type(error), error.reason) == (InvalidArgument, "INVALID_PAGE")
