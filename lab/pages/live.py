"""`/live`: the live engines, as their snapshots have them now."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from signalserve.lab.api.asking import Status, TheLab
from signalserve.lab.pages.charts import live_chart
from signalserve.lab.pages.rendering import rendered

router = APIRouter(include_in_schema=False)


@router.get("/live")
def live(request: Request, lab: TheLab, server: Status) -> Response:
    """Every engine; the page's script asks for it anew whenever a snapshot changes."""
    engines = lab.live.all()
    return rendered(
        request,
        "live.html.j2",
        page="live",
        server=server,
        engines=[(engine, live_chart(engine)) for engine in engines],
        folder=str(lab.live.folder),
    )
