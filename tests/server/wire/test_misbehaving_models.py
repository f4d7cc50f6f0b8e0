"""A model's own code can't end the server, hold up another model, or have what is no score answered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from signalserve.v1 import prediction_pb2
from tests import misbehaving_models as asked
from tests.server.wire.conftest import Registry, Server, ServerProcess, refusal, request, training_rows

GOOD = [0.1, 0.2, 0.3, 0.4]
FAILED, WRONG = "MODEL_FAILED", "WRONG_SCORES"
CASES = {
    asked.EXIT: FAILED,
    asked.INTERRUPT: FAILED,
    asked.STOP: FAILED,
    asked.CANCEL: FAILED,
    asked.FAIL: FAILED,
    asked.TOO_MANY: WRONG,
    asked.TOO_FEW: WRONG,
    asked.TWO: "NO_PROBABILITY",
}


@pytest.fixture
def hangs(tmp_path: Path) -> Iterator[Path]:
    """The model of `bad` hangs for as long as this file is there."""
    path = tmp_path / "hangs"
    path.touch()
    yield path
    path.unlink(missing_ok=True)


@pytest.fixture
def bad(registry: Registry, hangs: Path) -> Registry:
    """As `registry`, and BAD/15m: bad, native."""
    X, y = training_rows()
    registry.add("bad", "BAD", "misbehaving", asked.Misbehaving(str(hangs)).fit(X, y), X)
    return registry


def row(what: float, rows: int = 1) -> list[float]:
    return [what, 0.0, 0.0, 0.0] + [0.0] * 4 * (rows - 1)


@pytest.mark.parametrize("rows", [1, 3000])
def test_whatever_it_raises_or_gives_is_an_error_of_that_call_alone(
    bad: Registry, serve_process: Callable[..., ServerProcess], rows: int
) -> None:
    process = serve_process(bad.base)
    with grpc.insecure_channel(process.target) as channel:
        from signalserve.v1.prediction_service_pb2_grpc import PredictionServiceStub

        prediction = PredictionServiceStub(channel)
        for what, reason in CASES.items():
            message = request(row(what, rows), symbol="BAD", model_id=bad["bad"])
            error = refusal(prediction.Predict, message)
            assert (error.code, error.reason) == (grpc.StatusCode.INTERNAL, reason), what
            batch = prediction_pb2.PredictBatchRequest(requests=[message, request(GOOD)])
            first, second = prediction.PredictBatch(batch, timeout=60).results
            assert first.error.code == grpc.StatusCode.INTERNAL.value[0]
            assert len(second.response.scores) == 1
        fine = request(row(0.0, rows), symbol="BAD", model_id=bad["bad"])
        assert set(prediction.Predict(fine, timeout=60).scores) == {0.75}
    assert process.terminate() == 0


def test_a_model_that_hangs_as_it_is_asked_holds_up_no_other_and_is_said(
    bad: Registry, serve: Callable[..., Server], hangs: Path
) -> None:
    server = serve(bad.base)
    message = request(row(asked.HANG), symbol="BAD", model_id=bad["bad"])
    hanging = [server.prediction.Predict.future(message, timeout=600) for _ in range(60)]
    # more of its calls than may hang at once
    over = next(call for call in iter_done(hanging))
    assert over.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert any("it hangs" in warning for warning in server.client.status().warnings)
    assert server.prediction.Predict(request(GOOD), timeout=60).model_id == bad["a"]
    many = np.tile(GOOD, 20_000)
    assert len(server.prediction.Predict(request(many, symbol="ETHUSDT"), timeout=60).scores) == 20_000
    hangs.unlink()
    assert {tuple(call.result().scores) for call in hanging if not refused(call)} == {(0.75,)}
    assert not server.client.status().warnings


def iter_done(calls: list[grpc.Future]) -> Iterator[grpc.Future]:
    while True:
        yield from (call for call in calls if call.done())


def refused(call: grpc.Future) -> bool:
    return call.exception() is not None


def test_sigterm_ends_a_server_whose_model_hangs_as_it_is_asked(
    bad: Registry, serve_process: Callable[..., ServerProcess], hangs: Path
) -> None:
    process = serve_process(bad.base, server={"drain_seconds": 0.2})
    with grpc.insecure_channel(process.target) as channel:
        from signalserve.v1.prediction_service_pb2_grpc import PredictionServiceStub

        prediction = PredictionServiceStub(channel)
        hanging = prediction.Predict.future(
            request(row(asked.HANG), symbol="BAD", model_id=bad["bad"]), timeout=600
        )
        # the model is at it: a call of its own is answered in another thread
        fine = request(row(0.0), symbol="BAD", model_id=bad["bad"])
        assert list(prediction.Predict(fine, timeout=60).scores) == [0.75]
        assert process.terminate() == 0
        assert refused(hanging)
