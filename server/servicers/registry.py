"""RegistryService: the registry over the wire. All disk work is done in worker threads."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from signalserve.common.key import Key
from signalserve.config.evidence import PromotionSettings
from signalserve.predictors.errors import PredictorError
from signalserve.predictors.manifest import read_manifest
from signalserve.predictors.schema import schema_hash
from signalserve.registry import (
    Committed,
    ModelRegistryEntry,
    Promotion,
    Status,
    archive,
    promote,
    rollback,
)
from signalserve.registry.artifacts import read_importances, read_meta, run_dir
from signalserve.registry.errors import ArtifactError
from signalserve.registry.events import Event, EventLog
from signalserve.registry.lifecycle import entry_of
from signalserve.registry.metadata import META_FILE
from signalserve.registry.queries import select
from signalserve.registry.store import Store, View
from signalserve.server.errors import RequestError
from signalserve.server.loader import Loader
from signalserve.server.serving import ServingState
from signalserve.server.watcher import RegistryWatcher
from signalserve.v1 import registry_pb2, registry_service_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]

DEFAULT_PAGE, LARGEST_PAGE = 100, 1000
ACTOR_HEADER = "signalserve-actor"
_LONGEST_WAIT = 60.0
_LONGEST_TOKEN = 18

_STATUS_TO_WIRE = {
    "failed": registry_pb2.MODEL_STATUS_FAILED,
    "success": registry_pb2.MODEL_STATUS_SUCCESS,
    "candidate": registry_pb2.MODEL_STATUS_CANDIDATE,
    "production": registry_pb2.MODEL_STATUS_PRODUCTION,
    "archived": registry_pb2.MODEL_STATUS_ARCHIVED,
}
_STATUS_FROM_WIRE = {number: name for name, number in _STATUS_TO_WIRE.items()}


class RegistryServicer(registry_service_pb2_grpc.RegistryServiceServicer):
    """The handlers; `server.guard` stands around each of them."""

    def __init__(
        self,
        store: Store,
        state: ServingState,
        watcher: RegistryWatcher,
        loader: Loader,
        promotion: PromotionSettings,
        rules: Mapping[str, Any],
    ) -> None:
        self._store = store
        self._promotion, self._rules = promotion, rules
        self._base = store.base_dir
        self._state = state
        self._watcher = watcher
        self._loader = loader

    async def ListModels(  # noqa: N802 - the name is the method's on the wire
        self, request: registry_pb2.ListModelsRequest, context: Context
    ) -> registry_pb2.ListModelsResponse:
        """One page of the entries that pass the filter."""
        del context
        return await asyncio.to_thread(self._list, request)

    async def GetModel(  # noqa: N802 - as above
        self, request: registry_pb2.GetModelRequest, context: Context
    ) -> registry_pb2.GetModelResponse:
        """One model with its metadata and importances."""
        del context
        return await asyncio.to_thread(self._get, request.model_id)

    async def Promote(  # noqa: N802 - as above
        self, request: registry_pb2.PromoteRequest, context: Context
    ) -> registry_pb2.PromoteResponse:
        """Promote, then wait until this server serves the new revision."""
        promotions = [
            Promotion(
                item.model_id,
                item.expected_production_model_id if item.HasField("expected_production_model_id") else None,
            )
            for item in request.promotions
        ]
        with self._loader.ahead() as keep:
            committed = await asyncio.to_thread(
                promote,
                self._base,
                promotions,
                reason=request.reason,
                force=request.force,
                policy=self._promotion,
                rules=self._rules,
                request_id=request.request_id,
                actor=_actor(context),
                via="rpc",
                on_proof=keep,
            )
            return registry_pb2.PromoteResponse(**await self._answer(committed, context))

    async def Rollback(  # noqa: N802 - as above
        self, request: registry_pb2.RollbackRequest, context: Context
    ) -> registry_pb2.RollbackResponse:
        """Roll back, then wait until this server serves the new revision."""
        with self._loader.ahead() as keep:
            committed = await asyncio.to_thread(
                rollback,
                self._base,
                [Key(key.symbol, key.timeframe) for key in request.keys],
                reason=request.reason,
                request_id=request.request_id,
                actor=_actor(context),
                via="rpc",
                on_proof=keep,
            )
            return registry_pb2.RollbackResponse(**await self._answer(committed, context))

    async def Archive(  # noqa: N802 - as above
        self, request: registry_pb2.ArchiveRequest, context: Context
    ) -> registry_pb2.ArchiveResponse:
        """Archive, then wait until this server serves the new revision."""
        committed = await asyncio.to_thread(
            archive,
            self._base,
            list(request.model_ids),
            reason=request.reason,
            allow_unserved=request.allow_unserved,
            request_id=request.request_id,
            actor=_actor(context),
            via="rpc",
        )
        return registry_pb2.ArchiveResponse(**await self._answer(committed, context))

    async def ListEvents(  # noqa: N802 - as above
        self, request: registry_pb2.ListEventsRequest, context: Context
    ) -> registry_pb2.ListEventsResponse:
        """One page of the audit log, newest first."""
        del context
        return await asyncio.to_thread(self._events, request)

    async def _answer(self, committed: Committed, context: Context) -> dict[str, Any]:
        remaining = context.time_remaining()
        seconds = _LONGEST_WAIT if remaining is None else min(_LONGEST_WAIT, max(0.0, remaining - 0.2))
        snapshot = await self._watcher.wait_for_revision(committed.revision, seconds)
        failed = {failure.key for failure in snapshot.failures}
        served = [
            # a key whose new model failed to load still serves what it served before
            min(snapshot.revision, committed.revision - 1)
            for transition in committed.transitions
            if (transition.symbol, transition.timeframe) in failed
        ]
        return {
            "transitions": [
                registry_pb2.Transition(**transition.to_dict()) for transition in committed.transitions
            ],
            "registry_revision": committed.revision,
            "served_revision": max(0, min([snapshot.revision, *served])),
        }

    def _list(self, request: registry_pb2.ListModelsRequest) -> registry_pb2.ListModelsResponse:
        view = self._store.view()
        entries = select(
            view,
            symbol=request.symbol or None,
            timeframe=request.timeframe or None,
            model_type=request.model_type or None,
            statuses=[
                _STATUS_FROM_WIRE[number] for number in request.statuses if number in _STATUS_FROM_WIRE
            ],
        )
        start, stop = _page(request.page_size, request.page_token, len(entries))
        conflicts = view.state.conflicts()
        return registry_pb2.ListModelsResponse(
            models=[self._model(view, entry, conflicts) for entry in entries[start:stop]],
            next_page_token=str(stop) if stop < len(entries) else "",
            total_size=len(entries),
            unreadable_rows=[str(row) for row in view.unreadable],
        )

    def _get(self, model_id: str) -> registry_pb2.GetModelResponse:
        view = self._store.view()
        entry = entry_of(view.state, model_id)
        details = registry_pb2.ModelDetails(model=self._model(view, entry, view.state.conflicts()))
        folder = run_dir(self._base, entry)
        try:
            meta = read_meta(folder, entry)
        except ArtifactError as error:
            details.model.problems.append(str(error))
            return registry_pb2.GetModelResponse(details=details)
        details.feature_names.extend(meta.feature_cols or ())
        if meta.feature_cols:
            details.schema_hash = schema_hash(meta.feature_cols)
        for feature, importance in read_importances(folder, meta):
            details.importances.add(feature=feature, importance=importance)
        details.metadata_json = (folder / META_FILE).read_text(encoding="utf-8")
        return registry_pb2.GetModelResponse(details=details)

    def _model(self, view: View, entry: ModelRegistryEntry, conflicts: dict[str, str]) -> registry_pb2.Model:
        state = view.state
        digest = state.digests.get(entry.model_id, "")
        engine, reason, problems = self._engine(entry, digest)
        if entry.model_id in conflicts:
            problems.append(f"a second production row of {entry.key}: {conflicts[entry.model_id]} is served")
        snapshot = self._state.snapshot
        served = snapshot.by_key.get(entry.key)
        model = registry_pb2.Model(
            model_id=entry.model_id,
            symbol=entry.symbol,
            timeframe=entry.timeframe,
            model_type=entry.model_type,
            status=_STATUS_TO_WIRE[entry.status],
            created_at=entry.created_at,
            digest=digest,
            engine=engine,
            engine_reason=reason,
            served=(served is not None and served.model_id == entry.model_id)
            or entry.model_id in self._state.loaded_by_name(),
            quarantined=entry.model_id in state.quarantined,
            problems=problems,
        )
        for name in ("cum_return", "sharpe"):
            value = getattr(entry, name)
            if value == value:  # NaN stays unset
                setattr(model, name, value)
        return model

    def _engine(self, entry: ModelRegistryEntry, digest: str) -> tuple[str, str, list[str]]:
        if entry.status == Status.FAILED:
            return "", "", []
        folder = run_dir(self._base, entry)
        if not digest:
            problems = [] if folder.is_dir() else [f"{folder} is missing"]
            return "legacy", "no digest was taken; `signalserve registry adopt` takes one", problems
        try:
            manifest, found = read_manifest(folder)
        except (PredictorError, OSError) as error:
            return "", "", [str(error)]
        problems = [] if found == digest else ["manifest.json is not the one that was registered"]
        return manifest.engine, manifest.engine_reason, problems

    def _events(self, request: registry_pb2.ListEventsRequest) -> registry_pb2.ListEventsResponse:
        _, events = EventLog(self._store.log_path).read_new()
        chosen = [event for event in reversed(events) if _touches(event, request)]
        start, stop = _page(request.page_size, request.page_token, len(chosen))
        return registry_pb2.ListEventsResponse(
            events=[_event(event) for event in chosen[start:stop]],
            next_page_token=str(stop) if stop < len(chosen) else "",
        )


def _touches(event: Event, request: registry_pb2.ListEventsRequest) -> bool:
    if not (request.symbol or request.timeframe or request.model_id):
        return True
    subjects = [(change.symbol, change.timeframe, change.model_id) for change in event.transitions]
    if event.action == "evaluate" and event.evidence is not None:  # it may have moved nothing
        subjects.append((*event.detail["key"], event.evidence["challenger"]))
    return any(
        (not request.symbol or symbol == request.symbol)
        and (not request.timeframe or timeframe == request.timeframe)
        and (not request.model_id or model_id == request.model_id)
        for symbol, timeframe, model_id in subjects
    )


def _event(event: Event) -> registry_pb2.Event:
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
            for change in event.transitions
        ],
        evidence_json=json.dumps(event.evidence) if event.evidence is not None else "",
        hash=event.hash,
    )


def _wire_status(status: str | None) -> registry_pb2.ModelStatus.ValueType:
    return _STATUS_TO_WIRE[status] if status else registry_pb2.MODEL_STATUS_UNSPECIFIED


def _page(size: int, token: str, total: int) -> tuple[int, int]:
    if not 0 <= size <= LARGEST_PAGE:
        raise RequestError("INVALID_PAGE", f"page_size is 0 to {LARGEST_PAGE}, not {size}", field="page_size")
    if token and not (token.isascii() and token.isdecimal() and len(token) <= _LONGEST_TOKEN):
        raise RequestError("INVALID_PAGE", "page_token is not one that this server gave", field="page_token")
    start = min(int(token or 0), total)
    return start, min(start + (size or DEFAULT_PAGE), total)


def _actor(context: Context) -> str:
    """Who asks, as far as an unauthenticated call can tell: the name it gives, and where it comes from."""
    named = [value for key, value in _pairs(context.invocation_metadata()) if key == ACTOR_HEADER]
    name = named[0] if named and isinstance(named[0], str) else ""
    return f"{name} ({context.peer()})" if name else context.peer()


def _pairs(metadata: Iterable[Any] | None) -> Iterable[tuple[str, str | bytes]]:
    return ((item[0], item[1]) for item in metadata or ())
