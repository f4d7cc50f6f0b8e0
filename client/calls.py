"""Each call of the clients, described once: its method, its message, and what its answer becomes.

A description does nothing by itself: `SignalClient` carries it out by calling, `AsyncSignalClient` by awaiting.
The kind of a call decides two things: which of the client's deadlines is its default, and whether it names the
caller, which only a change of the registry does, for the audit log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from ..v1.registry_pb2 import (
    ArchiveRequest,
    ArchiveResponse,
    GetModelRequest,
    GetModelResponse,
    ListEventsRequest,
    ListEventsResponse,
    ListModelsRequest,
    ListModelsResponse,
    PromoteRequest,
    PromoteResponse,
    RollbackRequest,
    RollbackResponse,
)
from ..v1.serving_status_pb2 import GetServingStatusRequest, GetServingStatusResponse
from . import requests as build
from .batch import Batch
from .call import Call, Kind, Stubs
from .encode import Features, encode_head
from .health import Health
from .pages import Pages
from .parts import Parts
from .registry_values import AuditEvent, ModelDetails, ModelInfo, PromoteResult
from .requests import Key, PredictionRequest, Promotion
from .values import ServingStatus

if TYPE_CHECKING:
    from .call import Method

C = TypeVar("C", PromoteResponse, RollbackResponse, ArchiveResponse)
R = TypeVar("R", PromoteRequest, RollbackRequest, ArchiveRequest)


def predict(
    symbol: str,
    timeframe: str,
    features: Features,
    model_id: str | None,
    feature_names: Iterable[str] | None,
    schema_hash: str | None,
    event_time: datetime | None,
    request_id: str | None,
    feature_set: str | None,
    min_registry_revision: int | None,
    most_bytes: int,
) -> Parts:
    """Describe a prediction, in messages of at most `most_bytes`; TypeError and ValueError as `encode_predict` says."""
    head, matrix = encode_head(
        symbol,
        timeframe,
        features,
        model_id,
        feature_names=feature_names,
        schema_hash=schema_hash,
        event_time=event_time,
        request_id=request_id,
        feature_set=feature_set,
        min_registry_revision=min_registry_revision,
    )
    return Parts(head, matrix, most_bytes)


def predict_batch(requests: Iterable[PredictionRequest], most_bytes: int) -> Batch:
    """Describe a batch in one message of at most `most_bytes`; errors as `batch_request` says."""
    return Batch(build.batch_request(requests, most_bytes))


def list_models(
    symbol: str | None, timeframe: str | None, model_type: str | None, statuses: str | Iterable[str]
) -> Pages[ListModelsRequest, ListModelsResponse, ModelInfo]:
    """Describe a listing."""
    request = build.list_request(symbol, timeframe, model_type, statuses)
    return Pages(
        Call(Kind.READ, lambda stubs: stubs.registry.ListModels, request, lambda page, _: page),
        lambda page: map(ModelInfo.from_proto, page.models),
    )


def get_model(model_id: str) -> Call[GetModelRequest, GetModelResponse, ModelDetails]:
    """Describe the look at one model."""
    return Call(
        Kind.READ,
        lambda stubs: stubs.registry.GetModel,
        GetModelRequest(model_id=model_id),
        lambda answer, _: ModelDetails.from_proto(answer.details),
    )


def events(
    symbol: str | None, timeframe: str | None, model_id: str | None, limit: int | None
) -> Pages[ListEventsRequest, ListEventsResponse, AuditEvent]:
    """Describe a walk through the audit log."""
    request = build.events_request(symbol, timeframe, model_id, limit)
    return Pages(
        Call(Kind.READ, lambda stubs: stubs.registry.ListEvents, request, lambda page, _: page),
        lambda page: map(AuditEvent.from_proto, page.events),
        limit,
    )


def status() -> Call[GetServingStatusRequest, GetServingStatusResponse, ServingStatus]:
    """Describe the question for the serving status."""
    return Call(
        Kind.READ,
        lambda stubs: stubs.prediction.GetServingStatus,
        GetServingStatusRequest(),
        lambda answer, _: ServingStatus.from_proto(answer.status),
    )


def health(service: str) -> Call[StringValue, Int32Value, Health]:
    """Describe the question for the health."""
    return Call(
        Kind.READ,
        lambda stubs: stubs.health.check,
        StringValue(value=service),
        lambda answer, _: Health.from_proto(answer),
    )


def promote(
    models: str | Promotion | Iterable[str | Promotion],
    expected_production_model_id: str | None,
    reason: str,
    force: bool,
    request_id: str | None,
) -> Call[PromoteRequest, PromoteResponse, PromoteResult]:
    """Describe a promote."""
    request = build.promote_request(models, expected_production_model_id, reason, force, request_id)
    return _change(lambda stubs: stubs.registry.Promote, request)


def rollback(
    keys: Key | Iterable[Key],
    reason: str,
    request_id: str | None,
    expected_production_model_id: str | Iterable[str] | None,
) -> Call[RollbackRequest, RollbackResponse, PromoteResult]:
    """Describe a rollback."""
    request = build.rollback_request(keys, reason, request_id, expected_production_model_id)
    return _change(lambda stubs: stubs.registry.Rollback, request)


def archive(
    model_ids: str | Iterable[str], reason: str, allow_unserved: bool, request_id: str | None
) -> Call[ArchiveRequest, ArchiveResponse, PromoteResult]:
    """Describe an archive."""
    request = build.archive_request(model_ids, reason, allow_unserved, request_id)
    return _change(lambda stubs: stubs.registry.Archive, request)


def _change(method: Callable[[Stubs], Method[R, C]], request: R) -> Call[R, C, PromoteResult]:
    request_id = request.request_id
    return Call(
        Kind.CHANGE,
        method,
        request,
        lambda answer, _: PromoteResult.from_proto(answer, request_id),
        request_id,
    )
