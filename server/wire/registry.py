"""The registry's values <-> the messages of RegistryService; pure functions."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from signalserve.common.key import Key
from signalserve.predictors.schema import schema_hash
from signalserve.registry import Promotion
from signalserve.registry.events import Event
from signalserve.server.errors import RequestError
from signalserve.server.registry_calls import Details, Listed, Outcome
from signalserve.server.wire.basis import basis_message
from signalserve.v1 import registry_pb2

DEFAULT_PAGE, LARGEST_PAGE = 100, 1000
_LONGEST_TOKEN = 18

_STATUS_TO_WIRE = {
    "failed": registry_pb2.MODEL_STATUS_FAILED,
    "success": registry_pb2.MODEL_STATUS_SUCCESS,
    "candidate": registry_pb2.MODEL_STATUS_CANDIDATE,
    "production": registry_pb2.MODEL_STATUS_PRODUCTION,
    "archived": registry_pb2.MODEL_STATUS_ARCHIVED,
}
_STATUS_FROM_WIRE = {number: name for name, number in _STATUS_TO_WIRE.items()}


def promotions_of(request: registry_pb2.PromoteRequest) -> list[Promotion]:
    """What a promote asks for."""
    return [
        Promotion(
            item.model_id,
            item.expected_production_model_id if item.HasField("expected_production_model_id") else None,
        )
        for item in request.promotions
    ]


def keys_of(request: registry_pb2.RollbackRequest) -> list[Key]:
    """The keys that a rollback names."""
    return [Key(key.symbol, key.timeframe) for key in request.keys]


def filter_of(request: registry_pb2.ListModelsRequest) -> dict[str, Any]:
    """The arguments of `registry.queries.select`; statuses that nobody knows are passed over."""
    return {
        "symbol": request.symbol or None,
        "timeframe": request.timeframe or None,
        "model_type": request.model_type or None,
        "statuses": [_STATUS_FROM_WIRE[number] for number in request.statuses if number in _STATUS_FROM_WIRE],
    }


def page_of(
    request: registry_pb2.ListModelsRequest | registry_pb2.ListEventsRequest, total: int
) -> tuple[slice, str]:
    """Which of `total` items a request asks for, and the token of the next page, empty for none.

    Raises:
        RequestError: the size is out of bounds, or the token is none of ours.
    """
    size, token = request.page_size, request.page_token
    if not 0 <= size <= LARGEST_PAGE:
        raise RequestError("INVALID_PAGE", f"page_size is 0 to {LARGEST_PAGE}, not {size}", field="page_size")
    if token and not (token.isascii() and token.isdecimal() and len(token) <= _LONGEST_TOKEN):
        raise RequestError("INVALID_PAGE", "page_token is not one that this server gave", field="page_token")
    start = min(int(token or 0), total)
    stop = min(start + (size or DEFAULT_PAGE), total)
    return slice(start, stop), str(stop) if stop < total else ""


def model_message(listed: Listed) -> registry_pb2.Model:
    """A listed model."""
    entry, found = listed.entry, listed.description
    model = registry_pb2.Model(
        model_id=entry.model_id,
        symbol=entry.symbol,
        timeframe=entry.timeframe,
        model_type=entry.model_type,
        status=_STATUS_TO_WIRE[entry.status],
        created_at=entry.created_at,
        digest=found.digest,
        engine=found.engine,
        engine_reason=found.engine_reason,
        served=listed.served,
        quarantined=listed.quarantined,
        by_hand=found.by_hand,
        refit_of=found.refit_of,
        problems=[*found.problems, *([found.not_servable] if found.not_servable else [])],
    )
    if found.basis is not None:
        model.basis.CopyFrom(basis_message(found.basis))
    for name in ("cum_return", "sharpe"):
        value = getattr(entry, name)
        if value == value:  # NaN stays unset
            setattr(model, name, value)
    return model


def details_message(details: Details) -> registry_pb2.ModelDetails:
    """A model with its metadata and importances."""
    model = model_message(details.listed)
    if details.problem:
        model.problems.append(details.problem)
    columns = details.columns
    return registry_pb2.ModelDetails(
        model=model,
        feature_names=columns,
        schema_hash=schema_hash(columns) if columns else "",
        importances=[
            registry_pb2.FeatureImportance(feature=feature, importance=importance)
            for feature, importance in details.importances
        ],
        metadata_json=details.metadata_json,
        feature_set=details.feature_set,
    )


def outcome_fields(outcome: Outcome) -> dict[str, Any]:
    """What the answers to Promote, Rollback and Archive have in common."""
    return {
        "transitions": [
            registry_pb2.Transition(**asdict(transition)) for transition in outcome.committed.transitions
        ],
        "registry_revision": outcome.committed.revision,
        "served_revision": outcome.served_revision,
        "log_head": outcome.committed.head,
        "lagging": [registry_pb2.LaggingWorker(**item._asdict()) for item in outcome.lagging],
    }


def event_message(event: Event) -> registry_pb2.Event:
    """One event of the log."""
    moment = Timestamp()
    moment.FromJsonString(event.time)
    return registry_pb2.Event(
        revision=event.revision,
        event_time=moment,
        actor=event.actor,
        via=event.via,
        action=event.action,
        request_id=event.request_id,
        reason=event.reason or str(event.detail.get("error", "")),
        forced=event.forced,
        changes=[
            registry_pb2.StatusChange(
                symbol=change.symbol,
                timeframe=change.timeframe,
                model_id=change.model_id,
                from_status=_wire_status(change.before),
                to_status=_wire_status(change.after),
                digest=change.digest,
            )
            for change in event.changes
        ],
        evidence_json=_evidence_json(event),
        hash=event.hash,
    )


def _evidence_json(event: Event) -> str:
    if event.looked is not None:
        return json.dumps({name: event.looked[name] for name in ("model_id", "first", "last", "rules")})
    return json.dumps(event.evidence) if event.evidence is not None else ""


def _wire_status(status: str | None) -> registry_pb2.ModelStatus.ValueType:
    return _STATUS_TO_WIRE[status] if status else registry_pb2.MODEL_STATUS_UNSPECIFIED
