"""`/live`: the live engines, as their snapshots have them now."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from signalserve.common.key import MAX_LENGTH
from signalserve.lab.api.asking import Status, TheLab
from signalserve.lab.pages.charts import live_chart
from signalserve.lab.pages.rendering import rendered

router = APIRouter(include_in_schema=False)

MOST_AT_ONCE = 8
Name = Annotated[str, Query(max_length=2 * MAX_LENGTH)]


@router.get("/live")
def live(
    request: Request,
    lab: TheLab,
    server: Status,
    chosen: Annotated[tuple[Name, ...], Query(alias="engine", max_length=MOST_AT_ONCE)] = (),
) -> Response:
    """Every engine in a table, and bar by bar those that are chosen; all of them where they are few.

    The page's script asks for it anew whenever a snapshot changes.
    """
    engines = lab.live.all()
    few = len(engines) <= MOST_AT_ONCE
    shown = [engine for engine in engines if engine.name in chosen or (few and not chosen)]
    return rendered(
        request,
        "live.html.j2",
        page="live",
        server=server,
        engines=engines,
        shown=[(engine, live_chart(engine)) for engine in shown],
        most=MOST_AT_ONCE,
        folder=str(lab.live.folder),
    )
