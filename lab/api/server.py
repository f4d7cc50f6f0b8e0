"""`/api/ml/server`: what the gRPC server serves, or that it is away."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from signalserve.lab.api import examples
from signalserve.lab.api.answers import answer, documented
from signalserve.lab.api.asking import Status, TheLab
from signalserve.lab.fleet import FleetState
from signalserve.lab.identity import CurrentUser
from signalserve.lab.server import ServerState

router = APIRouter(prefix="/api/ml", tags=["server"])


@router.get("/server", responses=documented(ServerState, examples.SERVER, "What the server says of itself."))
def server(request: Request, status: Status) -> Response:
    """The server's status; one that is away is an answer, not an error."""
    return answer(request, status, status.revision)


@router.get(
    "/server/processes",
    responses=documented(FleetState, examples.FLEET, "What each process of each server says of itself."),
)
def processes(request: Request, lab: TheLab, user: CurrentUser) -> Response:
    """Every server that the lab knows of, process by process."""
    return answer(request, lab.fleet.look(user.token))
