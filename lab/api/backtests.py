"""`/api/ml/models/{model_id}/backtests`: a model's backtests, and one of them bar by bar."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import Response

from signalserve.lab.api import examples
from signalserve.lab.api.answers import answer, documented
from signalserve.lab.api.asking import ModelId, Points, TheLab
from signalserve.lab.api.problems import MissingError
from signalserve.lab.api.shapes import ModelBacktests
from signalserve.lab.backtests import Series
from signalserve.lab.identity import CurrentUser

router = APIRouter(prefix="/api/ml/models", tags=["backtests"])


@router.get(
    "/{model_id}/backtests",
    responses=documented(ModelBacktests, examples.BACKTESTS, "The model's backtests, newest first."),
)
def backtests(request: Request, lab: TheLab, user: CurrentUser, model_id: ModelId) -> Response:
    """A model's backtests; none for a model that has none, or that the registry no longer has."""
    return answer(request, ModelBacktests(model_id, tuple(lab.backtests.of(model_id))))


@router.get(
    "/{model_id}/backtests/{name}",
    responses=documented(Series, examples.SERIES, "The backtest bar by bar.", 404),
)
def series(
    request: Request,
    lab: TheLab,
    user: CurrentUser,
    model_id: ModelId,
    name: Annotated[str, Path(description="The backtest's name, as its list has it.", max_length=500)],
    max_points: Points = 2_000,
) -> Response:
    """Equity, drawdown, buy-and-hold, position and trades of a backtest."""
    found = lab.backtests.find(model_id, name)
    if found is None:
        raise MissingError("UNKNOWN_BACKTEST", f"{model_id} has no backtest {name!r}", {"model_id": model_id})
    return answer(request, lab.backtests.series(found, max_points))
