"""`/api/ml/events`: the audit log, and one event with what its decision read."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from signalserve.common.key import MAX_LENGTH
from signalserve.lab.api import examples
from signalserve.lab.api.answers import answer, documented
from signalserve.lab.api.asking import PageNumber, PerPage, SymbolFilter, TheLab, TimeframeFilter
from signalserve.lab.api.problems import MissingError
from signalserve.lab.audit import Chain, EventDetail, EventPage, EventQuery
from signalserve.lab.identity import CurrentUser

router = APIRouter(prefix="/api/ml/events", tags=["events"])


@router.get("", responses=documented(EventPage, examples.EVENTS, "One page of the log, newest first."))
def list_events(
    request: Request,
    lab: TheLab,
    user: CurrentUser,
    symbol: SymbolFilter = "",
    timeframe: TimeframeFilter = "",
    model_id: Annotated[str, Query(description="Only events about it.", max_length=MAX_LENGTH)] = "",
    action: Annotated[str, Query(description="Only this action.", max_length=MAX_LENGTH)] = "",
    actor: Annotated[str, Query(description="Part of the actor, without case.", max_length=MAX_LENGTH)] = "",
    text: Annotated[
        str, Query(description="Every word of it is in reason, ids, action or actor.", max_length=MAX_LENGTH)
    ] = "",
    page: PageNumber = 1,
    per_page: PerPage = 50,
) -> Response:
    """Who did what, by which way and why; with the proof of the chain."""
    query = EventQuery(symbol, timeframe, model_id, action, actor, text, page, per_page)
    found = lab.audit.page(query)
    return answer(request, found, found.chain.events)


@router.get("/chain", responses=documented(Chain, examples.CHAIN, "The proof of the whole log."))
def chain(request: Request, lab: TheLab, user: CurrentUser) -> Response:
    """Whether the log is a whole chain, and its head."""
    found = lab.audit.chain()
    return answer(request, found, found.events)


@router.get("/{revision}", responses=documented(EventDetail, examples.EVENT, "The event.", 404))
def event(
    request: Request,
    lab: TheLab,
    user: CurrentUser,
    revision: Annotated[
        int, Path(description="The event's revision, from 1.", ge=1, le=10**12, examples=[1])
    ],
) -> Response:
    """One event with what its decision read: evidence, verdicts, policy."""
    found = lab.audit.event(revision)
    if found is None:
        raise MissingError(
            "UNKNOWN_REVISION", f"there is no revision {revision}", {"revision": str(revision)}
        )
    return answer(request, found, revision)
