"""RegistryService: the registry over the wire."""

from __future__ import annotations

from signalserve.registry.store import Origin
from signalserve.server.guard import Call
from signalserve.server.registry_calls import RegistryCalls
from signalserve.server.wire.prediction import check_request_id
from signalserve.server.wire.registry import (
    details_message,
    event_message,
    filter_of,
    keys_of,
    model_message,
    outcome_fields,
    page_of,
    promotions_of,
)
from signalserve.v1 import registry_pb2


class RegistryService:
    """The handlers, by their names on the wire; `server.wire.handlers` puts the guard around each of them.

    What may be large is made, and written as bytes, in the thread that read it.
    """

    takes_bytes = frozenset[str]()

    def __init__(self, calls: RegistryCalls) -> None:
        self._calls = calls

    async def ListModels(  # noqa: N802 - the name is the method's on the wire
        self, request: registry_pb2.ListModelsRequest, call: Call
    ) -> bytes:
        """One page of the entries that pass the filter."""
        del call
        return await self._calls.read(self._list, request)

    async def GetModel(  # noqa: N802 - as above
        self, request: registry_pb2.GetModelRequest, call: Call
    ) -> bytes:
        """One model with its metadata and importances."""
        del call
        return await self._calls.read(self._details, request)

    async def Promote(  # noqa: N802 - as above
        self, request: registry_pb2.PromoteRequest, call: Call
    ) -> registry_pb2.PromoteResponse:
        """Promote, then wait until every worker serves the new revision."""
        outcome = await self._calls.promote(
            promotions_of(request), _origin(request, call), call.remaining(), force=request.force
        )
        return registry_pb2.PromoteResponse(**outcome_fields(outcome))

    async def Rollback(  # noqa: N802 - as above
        self, request: registry_pb2.RollbackRequest, call: Call
    ) -> registry_pb2.RollbackResponse:
        """Roll back, then wait until every worker serves the new revision."""
        expected = list(request.expected_production_model_ids)
        outcome = await self._calls.rollback(
            keys_of(request), expected, _origin(request, call), call.remaining()
        )
        return registry_pb2.RollbackResponse(**outcome_fields(outcome))

    async def Archive(  # noqa: N802 - as above
        self, request: registry_pb2.ArchiveRequest, call: Call
    ) -> registry_pb2.ArchiveResponse:
        """Archive, then wait until every worker serves the new revision."""
        outcome = await self._calls.archive(
            list(request.model_ids),
            _origin(request, call),
            call.remaining(),
            allow_unserved=request.allow_unserved,
        )
        return registry_pb2.ArchiveResponse(**outcome_fields(outcome))

    async def ListEvents(  # noqa: N802 - as above
        self, request: registry_pb2.ListEventsRequest, call: Call
    ) -> bytes:
        """One page of the audit log, newest first."""
        del call
        return await self._calls.read(self._events, request)

    def _list(self, request: registry_pb2.ListModelsRequest) -> bytes:
        listing = self._calls.listing(**filter_of(request))
        page, following = page_of(request, len(listing.entries))
        return registry_pb2.ListModelsResponse(
            models=[model_message(listed) for listed in listing.page(page)],
            next_page_token=following,
            total_size=len(listing.entries),
            unreadable_rows=listing.unreadable,
        ).SerializeToString()

    def _details(self, request: registry_pb2.GetModelRequest) -> bytes:
        details = details_message(self._calls.details(request.model_id))
        return registry_pb2.GetModelResponse(details=details).SerializeToString()

    def _events(self, request: registry_pb2.ListEventsRequest) -> bytes:
        chosen = self._calls.events(request.symbol, request.timeframe, request.model_id)
        page, following = page_of(request, len(chosen))
        return registry_pb2.ListEventsResponse(
            events=[event_message(event) for event in chosen[page]], next_page_token=following
        ).SerializeToString()


def _origin(
    request: registry_pb2.PromoteRequest | registry_pb2.RollbackRequest | registry_pb2.ArchiveRequest,
    call: Call,
) -> Origin:
    """What the log says of every change: by whom, why, under which id."""
    check_request_id(request.request_id)
    caller = call.caller
    return Origin(str(caller), caller.via or "rpc", request.reason, request.request_id)
