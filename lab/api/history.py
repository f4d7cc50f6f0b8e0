"""`/api/ml/keys` and `/api/ml/history`: which keys there are, and a key's past."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from signalserve.common.key import MAX_LENGTH
from signalserve.lab.api import examples
from signalserve.lab.api.answers import answer, documented, revision_of
from signalserve.lab.api.asking import TheLab
from signalserve.lab.api.problems import MissingError
from signalserve.lab.api.shapes import KeyName, Keys
from signalserve.lab.history import History
from signalserve.lab.identity import CurrentUser

router = APIRouter(prefix="/api/ml", tags=["history"])


@router.get("/keys", responses=documented(Keys, examples.KEYS, "Every key that has or had a model."))
def keys(request: Request, lab: TheLab, user: CurrentUser) -> Response:
    """The keys, in order."""
    found = tuple(KeyName(*key) for key in lab.histories.every_key())
    return answer(request, Keys(found), revision_of(lab))


@router.get("/history", responses=documented(History, examples.HISTORY, "The key's past.", 404))
def history(
    request: Request,
    lab: TheLab,
    user: CurrentUser,
    symbol: Annotated[str, Query(description="The symbol.", min_length=1, max_length=MAX_LENGTH)],
    timeframe: Annotated[str, Query(description="The timeframe.", min_length=1, max_length=MAX_LENGTH)],
) -> Response:
    """Every retrain, who was in production when, every decision, and the grid searches of a key."""
    found = lab.histories.of(symbol, timeframe)
    if found is None:
        raise MissingError(
            "UNKNOWN_KEY",
            f"{symbol}/{timeframe} never had a model; GET /api/ml/keys lists what did",
            {"symbol": symbol, "timeframe": timeframe},
        )
    return answer(request, found, revision_of(lab))
