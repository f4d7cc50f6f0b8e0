"""`/api/ml/compare`: two to four models side by side."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from signalserve.common.key import MAX_LENGTH
from signalserve.lab.api import examples
from signalserve.lab.api.answers import answer, documented, revision_of
from signalserve.lab.api.asking import Points, Status, TheLab
from signalserve.lab.api.problems import BadQueryError
from signalserve.lab.compare import FEWEST, MOST, Comparison

router = APIRouter(prefix="/api/ml", tags=["compare"])

Id = Annotated[str, Query(min_length=1, max_length=MAX_LENGTH)]


@router.get("/compare", responses=documented(Comparison, examples.COMPARISON, "The comparison.", 400, 404))
def compare(
    request: Request,
    lab: TheLab,
    status: Status,
    model_ids: Annotated[
        list[Id],
        Query(
            alias="model_id",
            description="The models, the challenger first; repeat it.",
            min_length=FEWEST,
            max_length=MOST,
        ),
    ],
    max_points: Points = 2_000,
) -> Response:
    """What the gate says, equity on common bars, the bootstrap's distribution, and in what they differ."""
    if len(set(model_ids)) != len(model_ids):
        raise BadQueryError(f"name {FEWEST} to {MOST} different models, the challenger first")
    found = lab.comparisons.of(model_ids, status.served, max_points=max_points)
    return answer(request, found, revision_of(lab))
