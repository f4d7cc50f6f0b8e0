"""`/api/ml/live`: the live engines, as their snapshots have them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import Response

from signalserve.lab.api import examples
from signalserve.lab.api.answers import answer, documented
from signalserve.lab.api.asking import TheLab
from signalserve.lab.api.problems import MissingError
from signalserve.lab.api.shapes import Engines
from signalserve.lab.identity import CurrentUser
from signalserve.lab.live import LiveEngine

router = APIRouter(prefix="/api/ml/live", tags=["live"])


@router.get("", responses=documented(Engines, examples.ENGINES, "Every engine that left a snapshot."))
def engines(request: Request, lab: TheLab, user: CurrentUser) -> Response:
    """The engines, those whose snapshot can't be read included."""
    return answer(request, Engines(lab.live.all()))


@router.get("/{name}", responses=documented(LiveEngine, examples.ENGINE, "The engine.", 404))
def engine(
    request: Request,
    lab: TheLab,
    user: CurrentUser,
    name: Annotated[str, Path(description="The snapshot's name without `.json`.", max_length=500)],
) -> Response:
    """One engine."""
    found = lab.live.one(name)
    if found is None:
        raise MissingError("UNKNOWN_ENGINE", f"no engine left a snapshot {name!r}", {"name": name})
    return answer(request, found)
