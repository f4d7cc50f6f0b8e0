"""RegistryService: the registry over the wire. All disk work is done in worker threads."""

from __future__ import annotations

import asyncio
from typing import Any

from signalserve.predictors.schema import schema_hash
from signalserve.registry import Committed, Description, ModelRegistryEntry, Registry
from signalserve.registry.errors import ArtefactError
from signalserve.registry.plans import entry_of
from signalserve.registry.queries import select
from signalserve.registry.store import View
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
        registry: Registry,
        state: ServingState,
        named: NamedModels,
        watcher: RegistryWatcher,
        loader: Loader,
    ) -> None:
        self._registry = registry
        self._state = state
        self._named = named
        self._watcher = watcher
        self._loader = loader

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
                self._registry.promote,
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
                self._registry.rollback, keys_of(request), on_proof=keep, **_signed(request, call)
            )
            return registry_pb2.RollbackResponse(**await self._outcome(committed, call))

    async def Archive(  # noqa: N802 - as above
        self, request: registry_pb2.ArchiveRequest, call: Call
    ) -> registry_pb2.ArchiveResponse:
        """Archive, then wait until this server serves the new revision."""
        committed = await asyncio.to_thread(
            self._registry.archive,
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
        view = self._registry.view()
        entries = select(view.state, **filter_of(request))
        page, following = page_of(request, len(entries))
        shown = entries[page]
        described = zip(shown, self._registry.descriptions(view, shown), strict=True)
        return registry_pb2.ListModelsResponse(
            models=[self._model(view, entry, found) for entry, found in described],
            next_page_token=following,
            total_size=len(entries),
            unreadable_rows=[str(row) for row in view.unreadable],
        )

    def _details(self, model_id: str) -> registry_pb2.ModelDetails:
        view = self._registry.view()
        entry = entry_of(view.state, model_id)
        (found,) = self._registry.descriptions(view, [entry])
        model = self._model(view, entry, found)
        artefact = self._registry.artefact_of(view.state, model_id)
        try:
            meta = artefact.meta()
            return details_message(
                model,
                feature_names=meta.feature_cols or (),
                schema_hash=schema_hash(meta.feature_cols) if meta.feature_cols else "",
                importances=artefact.importances(),
                metadata_json=artefact.meta_text(),
            )
        except ArtefactError as error:
            model.problems.append(str(error))
            return registry_pb2.ModelDetails(model=model)

    def _model(self, view: View, entry: ModelRegistryEntry, found: Description) -> registry_pb2.Model:
        served = self._state.snapshot.by_key.get(entry.key)
        return model_message(
            entry,
            found,
            served=(served is not None and served.model_id == entry.model_id)
            or entry.model_id in self._named.loaded(),
            quarantined=entry.model_id in view.state.quarantined,
        )

    def _events(self, request: registry_pb2.ListEventsRequest) -> registry_pb2.ListEventsResponse:
        chosen = [event for event in reversed(self._registry.events()) if touches(event, request)]
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
    lagging = any((key.symbol, key.timeframe) in failed for key in committed.transitions)
    return max(0, min(snapshot.revision, committed.revision - 1) if lagging else snapshot.revision)
