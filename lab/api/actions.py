"""`/api/ml/promote`, `/rollback`, `/archive`, and what each would change; done by the gRPC server as whoever asks."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from signalserve.common.key import MAX_LENGTH, Key
from signalserve.lab.actions import Actions, Done
from signalserve.lab.api import examples
from signalserve.lab.api.answers import answer, documented, errors_of, revision_of
from signalserve.lab.api.asking import Status, TheLab
from signalserve.lab.api.problems import BadQueryError
from signalserve.lab.api.shapes import ArchiveRequest, PromoteRequest, RollbackRequest
from signalserve.lab.identity import CurrentUser
from signalserve.lab.plain import json_bytes
from signalserve.lab.preview import Preview

router = APIRouter(prefix="/api/ml", tags=["actions"])

Id = Annotated[str, Query(min_length=1, max_length=MAX_LENGTH)]
ModelIds = Annotated[
    list[Id], Query(alias="model_id", description="The models; repeat it.", min_length=1, max_length=1_000)
]


def _changed(what: str) -> dict[int | str, dict[str, Any]]:
    content = {"application/json": {"example": examples.DONE}}
    return {
        200: {"model": Done, "description": what, "content": content},
        **errors_of(400, 403, 404, 409, 411, 413, 429, 501, 502, 504),
    }


@router.post("/promote", responses=_changed("They are in production."))
def promote(lab: TheLab, user: CurrentUser, body: PromoteRequest) -> Response:
    """Put models into production, all or none."""
    models = [(item.model_id, item.expected_production_model_id) for item in body.models]
    done = Actions(lab.server).promote(
        models, user, reason=body.reason, force=body.force, request_id=body.request_id
    )
    return _answer(done)


@router.post("/rollback", responses=_changed("The models before are in production again."))
def rollback(lab: TheLab, user: CurrentUser, body: RollbackRequest) -> Response:
    """Take keys back to the model before, all or none; the one left behind is quarantined."""
    keys = [(item.symbol, item.timeframe) for item in body.keys]
    done = Actions(lab.server).rollback(
        keys,
        user,
        reason=body.reason,
        expected=body.expected_production_model_ids,
        request_id=body.request_id,
    )
    return _answer(done)


@router.post("/archive", responses=_changed("They are archived."))
def archive(lab: TheLab, user: CurrentUser, body: ArchiveRequest) -> Response:
    """Retire models, all or none; they stay on disk."""
    done = Actions(lab.server).archive(
        body.model_ids,
        user,
        reason=body.reason,
        allow_unserved=body.allow_unserved,
        request_id=body.request_id,
    )
    return _answer(done)


@router.get(
    "/promote/preview", responses=documented(Preview, examples.PREVIEW, "What a promote would change.", 404)
)
def preview_promote(request: Request, lab: TheLab, status: Status, model_ids: ModelIds) -> Response:
    """Keys, from, to, the gate's verdicts, and the live engines that follow."""
    return answer(request, lab.previews.promote(model_ids, status.served), revision_of(lab))


@router.get(
    "/rollback/preview", responses=documented(Preview, examples.PREVIEW, "What a rollback would change.", 400)
)
def preview_rollback(
    request: Request,
    lab: TheLab,
    status: Status,
    keys: Annotated[
        list[Id],
        Query(
            alias="key", description="Keys as `SYMBOL/TIMEFRAME`; repeat it.", min_length=1, max_length=1_000
        ),
    ],
) -> Response:
    """The models that would come back, and the live engines that follow."""
    try:
        wanted = [Key.parse(key) for key in keys]
    except ValueError as error:
        raise BadQueryError(str(error)) from error
    return answer(request, lab.previews.rollback(wanted, status.served), revision_of(lab))


@router.get(
    "/archive/preview", responses=documented(Preview, examples.PREVIEW, "What an archive would change.", 404)
)
def preview_archive(request: Request, lab: TheLab, status: Status, model_ids: ModelIds) -> Response:
    """The models that would retire, and keys that would be left with nothing in production."""
    return answer(request, lab.previews.archive(model_ids, status.served), revision_of(lab))


def _answer(done: Done) -> Response:
    return Response(json_bytes(done), media_type="application/json", headers={"Cache-Control": "no-store"})
