"""`/compare`: two to four models side by side, or the choice of them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from signalserve.common.key import MAX_LENGTH, Key
from signalserve.lab.api.asking import Status, TheLab
from signalserve.lab.compare import FEWEST, MOST
from signalserve.lab.pages.charts import distribution_chart, overlay_chart, timing_chart, union_of_metrics
from signalserve.lab.pages.choices import KeyChoice, choices_of
from signalserve.lab.pages.rendering import query_string, rendered

router = APIRouter(include_in_schema=False)

MOST_POINTS = 2_000
Id = Annotated[str, Query(max_length=MAX_LENGTH)]


@router.get("/compare")
def compare(
    request: Request,
    lab: TheLab,
    server: Status,
    model_ids: Annotated[tuple[Id, ...], Query(alias="model", max_length=50)] = (),
    key: Annotated[str, Query(max_length=2 * MAX_LENGTH)] = "",
) -> Response:
    """The comparison of the models that are named, the challenger first; with fewer than two, the choice."""
    named = tuple(dict.fromkeys(model_id for model_id in model_ids if model_id))
    if FEWEST <= len(named) <= MOST:
        found = lab.comparisons.of(named, server.served, max_points=MOST_POINTS)
        return rendered(
            request,
            "compare.html.j2",
            page="compare",
            server=server,
            found=found,
            metric_names=union_of_metrics(*found.metrics),
            overlay=overlay_chart(found) if not found.overlay.problem else None,
            distributions=[(item, distribution_chart(item)) for item in found.distributions],
            timings=[(item, timing_chart(item)) for item in found.timings],
        )
    choices = choices_of(lab.registry)
    chosen = _chosen(choices, key)
    if chosen is not None and chosen.challenger and chosen.champion and not named:
        pair = query_string([("model", chosen.challenger), ("model", chosen.champion)])
        return RedirectResponse(f"/compare{pair}", 303)
    return rendered(
        request,
        "compare_choose.html.j2",
        page="compare",
        server=server,
        choices=choices,
        chosen=chosen,
        named=named,
        fewest=FEWEST,
        most=MOST,
    )


def _chosen(choices: tuple[KeyChoice, ...], key: str) -> KeyChoice | None:
    try:
        wanted = Key.parse(key) if key else None
    except ValueError:
        return None
    return next((item for item in choices if item.key == wanted), None)
