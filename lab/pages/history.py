"""`/history`: the keys, and each one's past."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from signalserve.common.key import MAX_LENGTH, Key
from signalserve.lab.api.asking import Status, Symbol, TheLab, Timeframe
from signalserve.lab.api.problems import MissingError
from signalserve.lab.pages.charts import grid_chart, history_chart, history_metrics, metric_of
from signalserve.lab.pages.choices import choices_of
from signalserve.lab.pages.formats import path_part
from signalserve.lab.pages.rendering import rendered

router = APIRouter(include_in_schema=False)


@router.get("/history")
def keys(
    request: Request,
    lab: TheLab,
    server: Status,
    key: Annotated[str, Query(max_length=2 * MAX_LENGTH)] = "",
) -> Response:
    """The keys to choose from; a form's `key` leads to its page."""
    if key:
        try:
            symbol, timeframe = Key.parse(key)
        except ValueError as error:
            raise MissingError("UNKNOWN_KEY", str(error)) from error
        return RedirectResponse(f"/history/{path_part(symbol)}/{path_part(timeframe)}", 303)
    present = {item.key: item for item in choices_of(lab.registry)}
    return rendered(
        request,
        "history_choose.html.j2",
        page="history",
        server=server,
        keys=lab.histories.every_key(),
        present=present,
        registry=lab.catalogue.registry_info(),
    )


@router.get("/history/{symbol:path}/{timeframe}")
def history(request: Request, lab: TheLab, server: Status, symbol: Symbol, timeframe: Timeframe) -> Response:
    """One key's retrains, production, decisions and grids."""
    found = lab.histories.of(symbol, timeframe)
    if found is None:
        raise MissingError("UNKNOWN_KEY", f"there never was a model of {symbol}/{timeframe} in this registry")
    return rendered(
        request,
        "history.html.j2",
        page="history",
        server=server,
        found=found,
        keys=lab.histories.every_key(),
        metric_names=history_metrics(found),
        metric_of=metric_of,
        chart_data=history_chart(found),
        grids=[(grid, grid_chart(grid)) for grid in found.grids],
    )
