"""`/api/ml/models`: the table, one model, its importances and its proof, and a key's usable models.

`/{symbol}/{timeframe}` and `/{model_id}/importance` share a shape. A timeframe is never called `importance`, `proof` or
`backtests`, so the routes with those names go first, and whatever else has two parts is a key. No symbol of a registry
holds a slash; one that is asked for all the same is a key that is not there.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from signalserve.common.key import MAX_LENGTH, Key
from signalserve.lab.api import examples
from signalserve.lab.api.answers import answer, documented, revision_of
from signalserve.lab.api.asking import (
    ModelId,
    PageNumber,
    PerPage,
    Status,
    Symbol,
    SymbolFilter,
    TheLab,
    Timeframe,
    TimeframeFilter,
)
from signalserve.lab.api.problems import MissingError
from signalserve.lab.api.shapes import KeyModels, ModelImportances
from signalserve.lab.catalogue import Page
from signalserve.lab.catalogue import Query as TableQuery
from signalserve.lab.detail import ModelDetail, Proof
from signalserve.lab.identity import CurrentUser
from signalserve.registry import Status as ModelStatus

router = APIRouter(prefix="/api/ml/models", tags=["models"])


class Order(StrEnum):
    """Of a sort."""

    ASC = "asc"
    DESC = "desc"


class Sort(StrEnum):
    """What the table may be sorted by; as `catalogue.SORTS`."""

    CREATED_AT = "created_at"
    MODEL_ID = "model_id"
    SYMBOL = "symbol"
    TIMEFRAME = "timeframe"
    MODEL_TYPE = "model_type"
    STATUS = "status"
    SHARPE = "sharpe"
    CUM_RETURN = "cum_return"
    ENGINE = "engine"
    SERVED = "served"


@router.get("", responses=documented(Page, examples.PAGE, "One page of the table."))
def list_models(
    request: Request,
    lab: TheLab,
    status: Status,
    symbol: SymbolFilter = "",
    timeframe: TimeframeFilter = "",
    model_type: Annotated[
        str, Query(description="Only this type, without case.", max_length=MAX_LENGTH)
    ] = "",
    statuses: Annotated[
        tuple[ModelStatus, ...],
        Query(alias="status", description="Only these; repeat it for several.", max_length=5),
    ] = (),
    text: Annotated[
        str,
        Query(
            description="Every word of it is in id, symbol, timeframe, type or status.", max_length=MAX_LENGTH
        ),
    ] = "",
    sort: Annotated[Sort, Query(description="The column to sort by.")] = Sort.CREATED_AT,
    order: Annotated[Order, Query(description="What has no value comes last either way.")] = Order.DESC,
    page: PageNumber = 1,
    per_page: PerPage = 50,
) -> Response:
    """List the registry's models."""
    query = TableQuery(
        symbol=symbol,
        timeframe=timeframe,
        model_type=model_type,
        statuses=tuple(str(item) for item in statuses),
        text=text,
        sort=str(sort),
        descending=order == Order.DESC,
        page=page,
        per_page=per_page,
    )
    found = lab.catalogue.page(query, status.served)
    return answer(request, found, found.registry.revision)


@router.get(
    "/{model_id}/importance",
    responses=documented(ModelImportances, examples.IMPORTANCES, "Shares that sum to 1, largest first.", 404),
)
def importance(request: Request, lab: TheLab, user: CurrentUser, model_id: ModelId) -> Response:
    """A model's feature importances, of feature_importances.csv or meta.json."""
    found = lab.models.importances(model_id)
    value = ModelImportances(model_id, found.source, found.problem, found.items)
    return answer(request, value, revision_of(lab))


@router.get(
    "/{model_id}/proof",
    responses=documented(Proof, examples.PROOF, "What the files are found to be, now.", 404),
)
def proof(request: Request, lab: TheLab, user: CurrentUser, model_id: ModelId) -> Response:
    """Hash a model's files and, where it is compiled, score its golden rows."""
    return answer(request, lab.models.prove(model_id), revision_of(lab))


@router.get("/{model_id}", responses=documented(ModelDetail, examples.DETAIL, "All of one model.", 404))
def detail(request: Request, lab: TheLab, status: Status, model_id: ModelId) -> Response:
    """One model: provenance, engine, metrics, calibration, what the gate says, its events."""
    return answer(request, lab.models.detail(model_id, status.served), revision_of(lab))


@router.get(
    "/{symbol:path}/{timeframe}",
    responses=documented(KeyModels, examples.KEY_MODELS, "The key's usable models, newest first.", 404),
)
def key_models(
    request: Request, lab: TheLab, status: Status, symbol: Symbol, timeframe: Timeframe
) -> Response:
    """A key's models of status success, candidate and production whose artefacts are valid."""
    known = lab.registry.state.keys()
    if Key(symbol, timeframe) not in known:
        raise MissingError(
            "UNKNOWN_KEY",
            f"no model of {symbol}/{timeframe} in the registry; GET /api/ml/models lists what there is",
            {"symbol": symbol, "timeframe": timeframe},
        )
    rows = lab.catalogue.usable(symbol, timeframe, status.served)
    return answer(request, KeyModels(symbol, timeframe, rows), revision_of(lab))
