"""`/`: the registry as a table."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from signalserve.common.key import MAX_LENGTH
from signalserve.lab.api.asking import PageNumber, PerPage, Status, SymbolFilter, TheLab, TimeframeFilter
from signalserve.lab.api.models import Order, Sort
from signalserve.lab.catalogue import Query as TableQuery
from signalserve.lab.order import STATUSES
from signalserve.lab.pages.rendering import rendered

router = APIRouter(include_in_schema=False)

COLUMNS = (
    # sort, heading, whether it holds numbers, the order that a first click asks for
    (Sort.MODEL_ID, "Model", False, Order.ASC),
    (Sort.SYMBOL, "Symbol", False, Order.ASC),
    (Sort.TIMEFRAME, "Timeframe", False, Order.ASC),
    (Sort.MODEL_TYPE, "Type", False, Order.ASC),
    (Sort.STATUS, "Status", False, Order.ASC),
    (Sort.SHARPE, "Sharpe", True, Order.DESC),
    (Sort.CUM_RETURN, "Cum. return", True, Order.DESC),
    (Sort.CREATED_AT, "Age", True, Order.DESC),
    (Sort.ENGINE, "Engine", False, Order.ASC),
    (Sort.SERVED, "Serving now", False, Order.DESC),
)


@router.get("/")
def models(
    request: Request,
    lab: TheLab,
    server: Status,
    symbol: SymbolFilter = "",
    timeframe: TimeframeFilter = "",
    model_type: Annotated[str, Query(max_length=MAX_LENGTH)] = "",
    status: Annotated[str, Query(max_length=MAX_LENGTH)] = "",
    text: Annotated[str, Query(max_length=MAX_LENGTH)] = "",
    sort: Sort = Sort.CREATED_AT,
    order: Order = Order.DESC,
    page: PageNumber = 1,
    per_page: PerPage = 50,
) -> Response:
    """One page of the table."""
    query = TableQuery(
        symbol=symbol,
        timeframe=timeframe,
        model_type=model_type,
        statuses=(status,) if status in STATUSES else (),  # an unknown one shows all, as the form then says
        text=text,
        sort=str(sort),
        descending=order == Order.DESC,
        page=page,
        per_page=per_page,
    )
    return rendered(
        request,
        "models.html.j2",
        page="models",
        server=server,
        table=lab.catalogue.page(query, server.served),
        query=query,
        columns=COLUMNS,
        statuses=STATUSES,
        filtered=any((symbol, timeframe, model_type, query.statuses, text.strip())),
    )
