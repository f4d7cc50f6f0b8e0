"""RegistryService: the registry over the wire. All disk work is done in worker threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from signalserve.predictors.errors import PredictorError
from signalserve.predictors.manifest import read_manifest
from signalserve.predictors.schema import schema_hash
from signalserve.registry import Committed, ModelRegistryEntry, Status, archive, rollback
from signalserve.registry.artifacts import read_importances, read_meta, run_dir
from signalserve.registry.errors import ArtifactError
from signalserve.registry.events import EventLog
from signalserve.registry.lifecycle import entry_of
from signalserve.registry.metadata import META_FILE
from signalserve.registry.queries import select
from signalserve.registry.store import Store, View
from signalserve.server.guard import Call
from signalserve.server.loader import Loader
from signalserve.server.named import NamedModels
from signalserve.server.snapshot import ServingSnapshot, ServingState
from signalserve.server.watcher import RegistryWatcher
from signalserve.server.wire.registry import (
    details_message,
    event_message,
    filter_of,
    keys_of,
    model_message,
    outcome_fields,
    page_of,
    promotions_of,
    touches,
)
from signalserve.v1 import registry_pb2

_LONGEST_WAIT = 60.0
_TIME_TO_ANSWER = 0.2


class RegistryService:
    """The handlers, by their names on the wire; `server.wire.handlers` puts the guard around each of them."""

    def __init__(
        self,
        store: Store,
        state: ServingState,
        named: NamedModels,
        watcher: RegistryWatcher,
        loader: Loader,
        promote: Callable[..., Committed],
    ) -> None:
        """`promote` is the registry's, with the gate that it asks."""
        self._store = store
        self._base = store.base_dir
        self._state = state
        self._named = named
        self._watcher = watcher
        self._loader = loader
        self._promote = promote

    async def ListModels(  # noqa: N802 - the name is the method's on the wire
        self, request: registry_pb2.ListModelsRequest, call: Call
    ) -> registry_pb2.ListModelsResponse:
        """One page of the entries that pass the filter."""
        del call
        return await asyncio.to_thread(self._list, request)

    async def GetModel(  # noqa: N802 - as above
        self, request: registry_pb2.GetModelRequest, call: Call
    ) -> registry_pb2.GetModelResponse:
        """One model with its metadata and importances."""
        del call
        details = await asyncio.to_thread(self._details, request.model_id)
        return registry_pb2.GetModelResponse(details=details)

    async def Promote(  # noqa: N802 - as above
        self, request: registry_pb2.PromoteRequest, call: Call
    ) -> registry_pb2.PromoteResponse:
        """Promote, then wait until this server serves the new revision."""
        with self._loader.ahead() as keep:
            committed = await asyncio.to_thread(
                self._promote,
                self._base,
                promotions_of(request),
                force=request.force,
                on_proof=keep,
                **_signed(request, call),
            )
            return registry_pb2.PromoteResponse(**await self._outcome(committed, call))

    async def Rollback(  # noqa: N802 - as above
        self, request: registry_pb2.RollbackRequest, call: Call
    ) -> registry_pb2.RollbackResponse:
        """Roll back, then wait until this server serves the new revision."""
        with self._loader.ahead() as keep:
            committed = await asyncio.to_thread(
                rollback, self._base, keys_of(request), on_proof=keep, **_signed(request, call)
            )
            return registry_pb2.RollbackResponse(**await self._outcome(committed, call))

    async def Archive(  # noqa: N802 - as above
        self, request: registry_pb2.ArchiveRequest, call: Call
    ) -> registry_pb2.ArchiveResponse:
        """Archive, then wait until this server serves the new revision."""
        committed = await asyncio.to_thread(
            archive,
            self._base,
            list(request.model_ids),
            allow_unserved=request.allow_unserved,
            **_signed(request, call),
        )
        return registry_pb2.ArchiveResponse(**await self._outcome(committed, call))

    async def ListEvents(  # noqa: N802 - as above
        self, request: registry_pb2.ListEventsRequest, call: Call
    ) -> registry_pb2.ListEventsResponse:
        """One page of the audit log, newest first."""
        del call
        return await asyncio.to_thread(self._events, request)

    async def _outcome(self, committed: Committed, call: Call) -> dict[str, Any]:
        """Wait until this server serves what was committed, as long as the call has time."""
        remaining = call.remaining()
        seconds = (
            _LONGEST_WAIT if remaining is None else min(_LONGEST_WAIT, max(0.0, remaining - _TIME_TO_ANSWER))
        )
        snapshot = await self._watcher.wait_for_revision(committed.revision, seconds)
        return outcome_fields(committed, _served_revision(snapshot, committed))

    def _list(self, request: registry_pb2.ListModelsRequest) -> registry_pb2.ListModelsResponse:
        view = self._store.view()
        entries = select(view, **filter_of(request))
        page, following = page_of(request, len(entries))
        conflicts = view.state.conflicts()
        return registry_pb2.ListModelsResponse(
            models=[self._model(view, entry, conflicts) for entry in entries[page]],
            next_page_token=following,
            total_size=len(entries),
            unreadable_rows=[str(row) for row in view.unreadable],
        )

    def _details(self, model_id: str) -> registry_pb2.ModelDetails:
        view = self._store.view()
        entry = entry_of(view.state, model_id)
        model = self._model(view, entry, view.state.conflicts())
        folder = run_dir(self._base, entry)
        try:
            meta = read_meta(folder, entry)
        except ArtifactError as error:
            model.problems.append(str(error))
            return registry_pb2.ModelDetails(model=model)
        return details_message(
            model,
            feature_names=meta.feature_cols or (),
            schema_hash=schema_hash(meta.feature_cols) if meta.feature_cols else "",
            importances=read_importances(folder, meta),
            metadata_json=(folder / META_FILE).read_text(encoding="utf-8"),
        )

    def _model(self, view: View, entry: ModelRegistryEntry, conflicts: dict[str, str]) -> registry_pb2.Model:
        digest = view.state.digests.get(entry.model_id, "")
        engine, reason, problems = self._engine(entry, digest)
        if entry.model_id in conflicts:
            problems.append(f"a second production row of {entry.key}: {conflicts[entry.model_id]} is served")
        served = self._state.snapshot.by_key.get(entry.key)
        return model_message(
            entry,
            digest=digest,
            engine=engine,
            engine_reason=reason,
            served=(served is not None and served.model_id == entry.model_id)
            or entry.model_id in self._named.loaded(),
            quarantined=entry.model_id in view.state.quarantined,
            problems=problems,
        )

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
        chosen = [event for event in reversed(events) if touches(event, request)]
        page, following = page_of(request, len(chosen))
        return registry_pb2.ListEventsResponse(
            events=[event_message(event) for event in chosen[page]], next_page_token=following
        )


def _signed(
    request: registry_pb2.PromoteRequest | registry_pb2.RollbackRequest | registry_pb2.ArchiveRequest,
    call: Call,
) -> dict[str, Any]:
    """What the log says of every change: why, under which id, by whom."""
    return {
        "reason": request.reason,
        "request_id": request.request_id,
        "actor": str(call.caller),
        "via": "rpc",
    }


def _served_revision(snapshot: ServingSnapshot, committed: Committed) -> int:
    failed = {failure.key for failure in snapshot.failures}
    # a key whose new model failed to load still serves what it served before
    lagging = any((change.symbol, change.timeframe) in failed for change in committed.transitions)
    return max(0, min(snapshot.revision, committed.revision - 1) if lagging else snapshot.revision)
