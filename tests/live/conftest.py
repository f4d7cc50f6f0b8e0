# ruff: noqa: N802  the servicers' methods are named as the protocol names them
"""A server with a model of one line, on a real port that stays its own over stop and start."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from signalserve.client import SignalClient
from signalserve.features.pipeline import FeaturePipeline
from signalserve.live.bars import Bar
from signalserve.live.engine import LiveEngine
from signalserve.live.records import BarRecord
from signalserve.live.scoring import StreamScorer
from signalserve.trading.rules import TradingRules
from signalserve.trading.trader import Trader
from signalserve.v1 import (
    prediction_pb2,
    prediction_service_pb2_grpc,
    registry_pb2,
    registry_service_pb2_grpc,
    serving_status_pb2,
)

PIPELINE = FeaturePipeline("core")
LONG_MS = 60_000.0


def model(values: Any) -> float:
    """The model: a probability that changes from bar to bar and uses every column, in whatever order."""
    return float(0.5 + 0.5 * np.sin(3.0 * np.sin(np.sort(np.asarray(values, dtype=np.float64))).sum()))


def refusal(code: str, reason: str) -> status_pb2.Status:
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason=reason, domain="signalserve"))
    return status_pb2.Status(
        code=grpc.StatusCode[code].value[0], message=f"because of {reason}", details=[detail]
    )


class FakePrediction(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self) -> None:
        self.model_id = "first"
        self.requests: list[prediction_pb2.PredictRequest] = []
        self.asked = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        self.refuse: Callable[[int, prediction_pb2.PredictRequest], status_pb2.Status | None] = lambda *_: (
            None
        )
        self.ready = True
        self.extra: dict[str, Any] = {}
        self.scores: Callable[[prediction_pb2.PredictRequest], list[float]] = lambda request: [
            model(request.values)
        ]

    def PredictStream(self, request_iterator: Any, context: Any) -> Any:
        for message in request_iterator:
            request = message.request
            self.requests.append(request)
            self.asked.set()
            self.gate.wait(60)
            error = self.refuse(len(self.requests), request)
            if error is not None:
                yield prediction_pb2.PredictStreamResponse(sequence=request.sequence, error=error)
                continue
            response = prediction_pb2.PredictResponse(
                scores=self.scores(request),
                model_id=request.model_id or self.model_id,
                registry_revision=7,
                sequence=request.sequence,
                **self.extra,
            )
            yield prediction_pb2.PredictStreamResponse(sequence=request.sequence, response=response)

    def GetServingStatus(self, request: Any, context: Any) -> Any:
        return serving_status_pb2.GetServingStatusResponse(status=self._status(ready=self.ready))

    def WatchServingStatus(self, request: Any, context: Any) -> Any:
        yield serving_status_pb2.WatchServingStatusResponse(status=self._status(ready=False))
        yield serving_status_pb2.WatchServingStatusResponse(status=self._status(ready=True))

    def _status(self, *, ready: bool) -> serving_status_pb2.ServingStatus:
        served = serving_status_pb2.ServedModel(symbol="SYNTH", timeframe="15m", model_id=self.model_id)
        return serving_status_pb2.ServingStatus(ready=ready, models=[served] if ready else [])


class FakeRegistry(registry_service_pb2_grpc.RegistryServiceServicer):
    def __init__(self) -> None:
        self.feature_names = list(PIPELINE.names)
        self.owners = {"m": "a/b"}
        self.status = registry_pb2.MODEL_STATUS_SUCCESS
        self.metadata: dict[str, Any] = {"feature_preset": "core", "pipeline_version": "1"}

    def feature_set(self) -> str:
        """As a server answers for a model that was registered with this metadata."""
        said = [self.metadata.get(name) for name in ("feature_preset", "pipeline_version")]
        return "@".join(said) if all(said) else ""

    def ListModels(self, request: Any, context: Any) -> Any:
        known = [registry_pb2.Model(model_id="idle")] if request.symbol == "IDLE" else []
        return registry_pb2.ListModelsResponse(models=known, total_size=len(known))

    def GetModel(self, request: Any, context: Any) -> Any:
        if request.model_id == "gone":
            context.abort_with_status(rpc_status.to_status(refusal("NOT_FOUND", "UNKNOWN_MODEL")))
        return registry_pb2.GetModelResponse(
            details=registry_pb2.ModelDetails(
                model=registry_pb2.Model(
                    model_id=request.model_id,
                    symbol=self.owners.get(request.model_id, "SYNTH"),
                    timeframe="15m",
                    status=self.status,
                ),
                feature_names=self.feature_names,
                metadata_json=json.dumps(self.metadata),
                feature_set=self.feature_set(),
            )
        )


class FakeServer:
    model = staticmethod(model)
    refusal = staticmethod(refusal)

    def __init__(self) -> None:
        self.prediction = FakePrediction()
        self.registry = FakeRegistry()
        self.port = 0
        self._server: Any = None
        self.start()

    @property
    def target(self) -> str:
        return f"ipv4:127.0.0.1:{self.port}"

    def start(self) -> None:
        self._server = grpc.server(futures.ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(self.prediction, self._server)
        registry_service_pb2_grpc.add_RegistryServiceServicer_to_server(self.registry, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        self._server.start()

    def stop(self) -> None:
        self.prediction.gate.set()
        self._server.stop(0).wait()


@pytest.fixture
def server() -> Iterator[FakeServer]:
    running = FakeServer()
    yield running
    running.stop()


@pytest.fixture
def client(server: FakeServer) -> Iterator[SignalClient]:
    with SignalClient(server.target, deadline_ms=LONG_MS) as opened:
        yield opened


class ListSource:
    """Bars from memory."""

    def __init__(self, bars: list[Bar], history: int = 0) -> None:
        self._bars = bars[history:]
        self._history = bars[:history]
        self._stopped = False
        self.asked_for = 0

    def history(self, limit: int) -> list[Bar]:
        self.asked_for = limit
        return self._history[-limit:]

    def __iter__(self) -> Iterator[Bar]:
        for bar in self._bars:
            if self._stopped:
                return
            yield bar

    def stop(self) -> None:
        self._stopped = True


def bars_of(frame: Any) -> list[Bar]:
    return [
        Bar(time.to_pydatetime(), *(float(value) for value in row))
        for time, row in zip(frame.index, frame.to_numpy(), strict=True)
    ]


class Rig:
    """An engine on a list of bars, with its scorer and trader at hand."""

    def __init__(
        self,
        client: SignalClient,
        frame: Any,
        *,
        history: int = 0,
        deadline_ms: float = LONG_MS,
        on_bar: Callable[[BarRecord], None] | None = None,
        **options: Any,
    ) -> None:
        self.frame = frame
        self.calls: list[BarRecord] = []
        self.hook = on_bar
        self.scorer = StreamScorer(
            client,
            "SYNTH",
            "15m",
            model_id=options.get("pinned_model_id"),
            deadline_ms=deadline_ms,
        )
        chosen = {name: options.pop(name) for name in ("warmup_bars", "allow_short") if name in options}
        self.trader = Trader(TradingRules(0.6, 0.4, fee_bps=5.0, slippage_bps=2.0, **chosen), 1000.0)
        self.source = ListSource(bars_of(frame), history)
        self.engine = LiveEngine(
            "SYNTH",
            "15m",
            self.source,
            options.pop("pipeline", PIPELINE),
            self.scorer,
            self.trader,
            options.pop("snapshot", None),
            on_bar=self._note,
            **options,
        )
        offline = PIPELINE.transform(frame).to_numpy()
        self.expected = [None if np.isnan(row).any() else model(row) for row in offline[history:]]

    def check_scores(self, records: Sequence[BarRecord]) -> None:
        """Every bar has the score of its offline features, and those of the warm-up have none."""
        found = [record.probability for record in records]
        assert [value is None for value in found] == [value is None for value in self.expected]
        np.testing.assert_allclose(
            [value for value in found if value is not None],
            [value for value in self.expected if value is not None],
            rtol=0.0,
            atol=1e-6,
        )

    def _note(self, record: BarRecord) -> None:
        self.calls.append(record)
        if self.hook is not None:
            self.hook(record)

    def wait_connected(self) -> None:
        while self.scorer.report().state != "connected":
            self.scorer.wait_late(0.02)


@pytest.fixture
def make_rig(client: SignalClient) -> Iterator[Callable[..., Rig]]:
    rigs: list[Rig] = []

    def make(frame: Any, **options: Any) -> Rig:
        rigs.append(Rig(client, frame, **options))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.scorer.close()
