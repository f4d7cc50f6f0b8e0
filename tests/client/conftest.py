# ruff: noqa: N802  the servicers' methods are named as the protocol names them
"""A server with hand-written answers, on a real port: what each symbol does is said in `FakePrediction.answer`."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2, timestamp_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from signalserve.v1 import (
    prediction_pb2,
    prediction_service_pb2_grpc,
    registry_pb2,
    registry_service_pb2_grpc,
    serving_status_pb2,
)

SERVER_OPTIONS = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 16 * 1024 * 1024)]

CODES = {code.name: code for code in grpc.StatusCode}


def error_status(code: str, *, retry_after: float = 0.0) -> status_pb2.Status:
    """Return a status as the server sends it: ErrorInfo, BadRequest, RetryInfo."""
    details: list[Any] = [
        error_details_pb2.ErrorInfo(
            reason=f"WHY_{code}", domain="signalserve", metadata={"key": "X/15m", "request_id": "r-7"}
        )
    ]
    if code == "INVALID_ARGUMENT":
        violation = error_details_pb2.BadRequest.FieldViolation(field="values", description="wrong width")
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if retry_after:
        delay = duration_pb2.Duration(seconds=int(retry_after), nanos=int(retry_after % 1 * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    packed = []
    for detail in details:
        box = any_pb2.Any()
        box.Pack(detail)
        packed.append(box)
    return status_pb2.Status(code=CODES[code].value[0], message=f"because {code}", details=packed)


class FakePrediction(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, name: str) -> None:
        self.name = name
        self.calls: Counter[str] = Counter()
        self.metadata: list[dict[str, Any]] = []
        self.requests: list[Any] = []
        self.release = threading.Event()
        self.hold_watch = False
        self.worker = 0
        self.extra: dict[str, Any] = {}
        self.streams: list[list[int]] = []
        """The sequences that each call of PredictStream was asked."""
        self.before_answer: Callable[[int, int, Any, grpc.ServicerContext], None] = lambda *_: None
        """Gets the call's and the request's place, both from 1, the request and the context."""

    def answer(self, request: prediction_pb2.PredictRequest) -> Any:
        """Score = first value of each row; a symbol that is a code's name gives that error."""
        if request.symbol in CODES:
            after = 1.5 if request.symbol == "RESOURCE_EXHAUSTED" else 0.0
            return error_status(request.symbol, retry_after=after)
        width = max(1, len(request.feature_names))
        return prediction_pb2.PredictResponse(
            scores=request.values[::width],
            model_id=request.model_id or self.name,
            model_digest="d" * 64,
            registry_revision=7,
            schema_hash=request.schema_hash or "s" * 64,
            flags=[prediction_pb2.PREDICTION_FLAG_STALE_BAR],
            sequence=request.sequence,
            **self.extra,
        )

    def _note(self, method: str, request: Any, context: grpc.ServicerContext) -> None:
        self.calls[method] += 1
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))

    def Predict(self, request: Any, context: Any) -> Any:
        self._note("Predict", request, context)
        if request.symbol == "HANG":
            self.release.wait(30)
        if request.symbol == "PLAIN":
            context.abort(grpc.StatusCode.NOT_FOUND, "no details here")
        if request.symbol == "FLAKY" and self.calls["Predict"] < 3:
            context.abort_with_status(rpc_status.to_status(error_status("UNAVAILABLE")))
        if request.symbol == "FULL" and self.calls["Predict"] < 3:
            context.abort_with_status(
                rpc_status.to_status(error_status("RESOURCE_EXHAUSTED", retry_after=0.02))
            )
        if request.symbol == "TOO_LARGE":
            context.abort_with_status(rpc_status.to_status(error_status("RESOURCE_EXHAUSTED")))
        answer = self.answer(request)
        if isinstance(answer, status_pb2.Status):
            context.abort_with_status(rpc_status.to_status(answer))
        return answer

    def PredictBatch(self, request: Any, context: Any) -> Any:
        self._note("PredictBatch", request, context)
        results = []
        for item in request.requests:
            answer = self.answer(item)
            kind = "error" if isinstance(answer, status_pb2.Status) else "response"
            results.append(prediction_pb2.PredictBatchResult(**{kind: answer}))
        return prediction_pb2.PredictBatchResponse(results=results)

    def PredictStream(self, request_iterator: Any, context: Any) -> Any:
        self._note("PredictStream", None, context)
        asked: list[int] = []
        self.streams.append(asked)
        call = len(self.streams)
        for message in request_iterator:
            request = message.request
            asked.append(request.sequence)
            self.before_answer(call, len(asked), request, context)
            if request.symbol == "DRAIN":
                context.abort_with_status(rpc_status.to_status(error_status("UNAVAILABLE")))
            if request.symbol == "END":
                return
            if request.symbol == "HANG":
                self.release.wait(30)
            answer = self.answer(request)
            kind = "error" if isinstance(answer, status_pb2.Status) else "response"
            sequence = request.sequence + (request.symbol == "SKEW")
            yield prediction_pb2.PredictStreamResponse(sequence=sequence, **{kind: answer})

    def GetServingStatus(self, request: Any, context: Any) -> Any:
        self._note("GetServingStatus", request, context)
        return serving_status_pb2.GetServingStatusResponse(status=self.serving_status(7))

    def WatchServingStatus(self, request: Any, context: Any) -> Any:
        self._note("WatchServingStatus", request, context)
        for revision in range(1, 4):
            if revision > 1 and self.hold_watch:
                self.release.wait(30)
            yield serving_status_pb2.WatchServingStatusResponse(status=self.serving_status(revision))
        context.abort_with_status(rpc_status.to_status(error_status("UNAVAILABLE")))

    def serving_status(self, revision: int) -> serving_status_pb2.ServingStatus:
        return serving_status_pb2.ServingStatus(
            registry_revision=revision,
            seen_revision=revision,
            ready=True,
            models=[serving_status_pb2.ServedModel(symbol="X", timeframe="15m", model_id=self.name)],
            load_errors=[serving_status_pb2.LoadError(model_id="broken", message="digest differs")],
            version="0.1.0",
            process_id=11,
            worker=self.worker,
            start_time=timestamp_pb2.Timestamp(seconds=1_767_225_600),
        )


class FakeRegistry(registry_service_pb2_grpc.RegistryServiceServicer):
    """Seven models in pages of three; the first `busy` writes find the registry busy."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.requests: list[Any] = []
        self.busy = 0
        self.served_revision = 8
        self.lagging: list[registry_pb2.LaggingWorker] = []
        self.models = [
            registry_pb2.Model(
                model_id=f"m{n}", symbol="X", timeframe="15m", status=registry_pb2.MODEL_STATUS_SUCCESS
            )
            for n in range(7)
        ]

    def _page(self, token: str) -> tuple[slice, str]:
        first = int(token or 0)
        return slice(first, first + 3), str(first + 3) if first + 3 < len(self.models) else ""

    def ListModels(self, request: Any, context: Any) -> Any:
        self.calls["ListModels"] += 1
        self.requests.append(request)
        part, after = self._page(request.page_token)
        return registry_pb2.ListModelsResponse(
            models=self.models[part], next_page_token=after, unreadable_rows=["line 9: seven fields"]
        )

    def GetModel(self, request: Any, context: Any) -> Any:
        self.calls["GetModel"] += 1
        if request.model_id == "gone":
            context.abort_with_status(rpc_status.to_status(error_status("NOT_FOUND")))
        return registry_pb2.GetModelResponse(
            details=registry_pb2.ModelDetails(
                model=registry_pb2.Model(
                    model_id=request.model_id, sharpe=1.5, status=registry_pb2.MODEL_STATUS_PRODUCTION
                ),
                feature_names=["a", "b"],
                importances=[registry_pb2.FeatureImportance(feature="b", importance=0.75)],
                metadata_json='{"random_state": 7}',
            )
        )

    def _write(self, method: str, request: Any, context: Any, answer: Callable[..., Any]) -> Any:
        self.calls[method] += 1
        self.requests.append(request)
        if self.calls[method] <= self.busy:
            context.abort_with_status(rpc_status.to_status(error_status("UNAVAILABLE")))
        transition = registry_pb2.Transition(
            symbol="X", timeframe="15m", model_id="new", previous_model_id="old"
        )
        return answer(
            transitions=[transition],
            registry_revision=9,
            served_revision=self.served_revision,
            lagging=self.lagging,
        )

    def Promote(self, request: Any, context: Any) -> Any:
        if request.reason == "stale":
            self.calls["Promote"] += 1
            context.abort_with_status(rpc_status.to_status(error_status("ABORTED")))
        return self._write("Promote", request, context, registry_pb2.PromoteResponse)

    def Rollback(self, request: Any, context: Any) -> Any:
        return self._write("Rollback", request, context, registry_pb2.RollbackResponse)

    def Archive(self, request: Any, context: Any) -> Any:
        return self._write("Archive", request, context, registry_pb2.ArchiveResponse)

    def ListEvents(self, request: Any, context: Any) -> Any:
        self.calls["ListEvents"] += 1
        self.requests.append(request)
        part, after = self._page(request.page_token)
        change = registry_pb2.StatusChange(model_id="m", to_status=registry_pb2.MODEL_STATUS_CANDIDATE)
        events = [
            registry_pb2.Event(
                revision=7 - n, action="promote", changes=[change], evidence_json='{"kind": "artefact"}'
            )
            for n in range(7)
        ]
        return registry_pb2.ListEventsResponse(events=events[part], next_page_token=after)


class NotedHealth(health.HealthServicer):  # type: ignore[misc]  # the library has no annotations
    """The library's own, which also says that somebody watches."""

    def __init__(self) -> None:
        super().__init__()
        self.watched = threading.Event()
        self.say("", "SERVING")

    def say(self, service: str, status: str) -> None:
        self.set(service, health_pb2.HealthCheckResponse.ServingStatus.Value(status))

    def Watch(self, request: Any, context: Any, send_response_callback: Any = None) -> Any:
        answer = super().Watch(request, context, send_response_callback)
        self.watched.set()
        return answer

    Watch.experimental_non_blocking = True  # type: ignore[attr-defined]  # as the library marks its own


class FakeServer:
    """One server on a port that stays its own over stop and start."""

    def __init__(self, name: str, credentials: grpc.ServerCredentials | None = None) -> None:
        self.prediction = FakePrediction(name)
        self.registry = FakeRegistry()
        self.health = NotedHealth()
        self.port = 0
        self._credentials = credentials
        self._server: Any = None
        self.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def target(self) -> str:
        return f"ipv4:{self.address}"

    def start(self) -> None:
        self._server = grpc.server(futures.ThreadPoolExecutor(8), options=SERVER_OPTIONS)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(self.prediction, self._server)
        registry_service_pb2_grpc.add_RegistryServiceServicer_to_server(self.registry, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)
        if self._credentials is None:
            self.port = self._server.add_insecure_port(self.address)
        else:
            self.port = self._server.add_secure_port(self.address, self._credentials)
        self._server.start()

    def stop(self) -> None:
        self.prediction.release.set()
        self._server.stop(0).wait()


@pytest.fixture
def start_server() -> Iterator[Callable[..., FakeServer]]:
    servers: list[FakeServer] = []

    def start(name: str = "fake", credentials: grpc.ServerCredentials | None = None) -> FakeServer:
        servers.append(FakeServer(name, credentials))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def server(start_server: Callable[..., FakeServer]) -> FakeServer:
    return start_server()
