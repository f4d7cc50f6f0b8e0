"""`/events`: the audit log, and each of its revisions with what the decision read."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from signalserve.common.key import MAX_LENGTH
from signalserve.lab.api.asking import PageNumber, PerPage, Status, SymbolFilter, TheLab, TimeframeFilter
from signalserve.lab.api.problems import MissingError
from signalserve.lab.audit import ACTIONS, EventQuery
from signalserve.lab.pages.rendering import rendered

router = APIRouter(include_in_schema=False)

Text = Annotated[str, Query(max_length=MAX_LENGTH)]


@router.get("/events")
def events(
    request: Request,
    lab: TheLab,
    server: Status,
    symbol: SymbolFilter = "",
    timeframe: TimeframeFilter = "",
    model_id: Text = "",
    action: Text = "",
    actor: Text = "",
    text: Text = "",
    page: PageNumber = 1,
    per_page: PerPage = 50,
) -> Response:
    """One page of the log."""
    query = EventQuery(symbol, timeframe, model_id, action, actor, text, page, per_page)
    found = lab.audit.page(query)
    return rendered(
        request,
        "events.html.j2",
        page="events",
        server=server,
        found=found,
        query=query,
        actions=sorted({*ACTIONS, *found.actions}),
        filtered=any((symbol, timeframe, model_id, action, actor, text.strip())),
    )


@router.get("/events/{revision}")
def event(
    request: Request,
    lab: TheLab,
    server: Status,
    revision: Annotated[int, Path(ge=1, le=10**12)],
    done: Annotated[str, Query(max_length=20)] = "",
) -> Response:
    """One revision; `done` says that the reader has just made it."""
    found = lab.audit.event(revision)
    if found is None:
        raise MissingError("NO_SUCH_EVENT", f"the log has no revision {revision}")
    return rendered(
        request,
        "event.html.j2",
        page="events",
        server=server,
        event=found,
        done=bool(done),
        newest=lab.registry.state.revision,
    )
