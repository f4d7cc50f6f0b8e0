"""`/api/ml/server`: what the gRPC server serves, or that it is away."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from signalserve.lab.api import examples
from signalserve.lab.api.answers import answer, documented
from signalserve.lab.api.asking import Status
from signalserve.lab.server import ServerState

router = APIRouter(prefix="/api/ml", tags=["server"])


@router.get("/server", responses=documented(ServerState, examples.SERVER, "What the server says of itself."))
def server(request: Request, status: Status) -> Response:
    """The server's status; one that is away is an answer, not an error."""
    return answer(request, status, status.revision)
