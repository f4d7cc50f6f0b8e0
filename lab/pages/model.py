"""`/models/{model_id}`: one model, whole."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from signalserve.lab.api.asking import ModelId, Status, TheLab
from signalserve.lab.api.problems import MissingError
from signalserve.lab.calibration import PARTS
from signalserve.lab.pages.charts import (
    MOST_TRADES_DRAWN,
    calibration_chart,
    equity_chart,
    importances_chart,
    interval_chart,
    union_of_metrics,
)
from signalserve.lab.pages.rendering import rendered

router = APIRouter(include_in_schema=False)

MOST_POINTS = 1_500


@router.get("/models/{model_id}")
def model(
    request: Request,
    lab: TheLab,
    server: Status,
    model_id: ModelId,
    backtest: Annotated[str, Query(max_length=300)] = "",
) -> Response:
    """All that is known of a model; `backtest` names the one to draw, else its newest clean one."""
    found = lab.models.detail(model_id, server.served)
    backtests = lab.backtests.of(model_id)
    chosen = lab.backtests.find(model_id, backtest)
    if backtest and chosen is None:
        raise MissingError("NO_SUCH_BACKTEST", f"{model_id} has no backtest {backtest}")
    series = lab.backtests.series(chosen, MOST_POINTS) if chosen is not None else None
    return rendered(
        request,
        "model.html.j2",
        page="models",
        server=server,
        model=found,
        row=found.row,
        metric_names=union_of_metrics(found.metrics, found.walk_forward),
        backtest_names=[] if chosen is None else union_of_metrics(chosen.metrics),
        backtests=backtests,
        series=series,
        equity=None if series is None or not series.times else equity_chart(series),
        most_marked=MOST_TRADES_DRAWN,
        timings=[] if found.findings is None else interval_chart(found.findings.timings),
        importances=importances_chart(found.importances),
        calibration=calibration_chart(found.calibration),
        parts=PARTS,
        failures=[item for item in server.failures if item.model_id == model_id],
        engines=[item for item in lab.live.all() if item.used_model_id == model_id],
    )
