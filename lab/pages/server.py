"""`/server`: what the gRPC server serves, what it could not load, and what to do."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from signalserve.access.opening import ServerAccess
from signalserve.lab.api.asking import Status, TheLab
from signalserve.lab.identity import CurrentUser
from signalserve.lab.pages.rendering import rendered
from signalserve.registry.errors import RegistryError

router = APIRouter(include_in_schema=False)


@router.get("/server")
def server(request: Request, lab: TheLab, user: CurrentUser, server: Status) -> Response:
    """The server's own word, beside the registry's."""
    try:
        registry, problem = lab.catalogue.registry_info(), ""
        state = lab.registry.state
        productions = {
            (key.symbol, key.timeframe): model_id
            for key in {entry.key for entry in state.entries.values()}
            if (model_id := lab.registry.standing(state, key)) is not None
        }
    except RegistryError as error:  # the server's word stands without it
        registry, problem, productions = None, str(error), {}
    access: ServerAccess = request.app.state.access
    served = {(item.symbol, item.timeframe): item.model_id for item in server.models}
    return rendered(
        request,
        "server.html.j2",
        page="server",
        server=server,
        registry=registry,
        problem=problem,
        fleet=lab.fleet.look(user.token),
        warnings=access.warnings(),
        missing=sorted(
            (key, model_id)
            for key, model_id in productions.items()
            if server.answers and served.get(key) != model_id
        ),
    )
