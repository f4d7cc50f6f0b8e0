"""`/api/ml/stream`: server-sent events about what moves."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from signalserve.lab.api.answers import errors_of
from signalserve.lab.api.problems import problem
from signalserve.lab.changes import Changes, TooManyError
from signalserve.lab.identity import CurrentUser, Doorkeeper

router = APIRouter(prefix="/api/ml", tags=["stream"])

_EXAMPLE = 'id: 1f.2e.3d\nevent: registry\ndata: {"topic":"registry","signature":"1f"}\n\n'
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "`registry`, `live` or `backtests` as each changes; it ends after a while, so come back.",
        "content": {"text/event-stream": {"schema": {"type": "string"}, "example": _EXAMPLE}},
    },
    **errors_of(429),
}


@router.get("/stream", responses=_RESPONSES, response_class=StreamingResponse)
async def stream(
    request: Request,
    user: CurrentUser,
    last_event_id: Annotated[str, Header(description="The last event that was seen.", max_length=200)] = "",
) -> Response:
    """Say when the registry, a live engine's snapshot or a backtest changed."""
    changes: Changes = request.app.state.changes
    who = user.name or (request.client.host if request.client is not None else "")
    try:
        changes.check_room(who)
    except TooManyError as error:
        return problem(request, 429, "TOO_MANY_STREAMS", str(error), headers={"Retry-After": "5"})
    door: Doorkeeper = request.app.state.door

    async def gone() -> bool:
        return await request.is_disconnected() or not door.still(request, user, "GET /api/ml/stream")

    return StreamingResponse(
        changes.stream(who, last_event_id, gone),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )
