"""Promote, rollback and archive: each a page that asks, and a form that does it through the gRPC server."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Query
from starlette.requests import Request
from starlette.responses import Response

from signalserve.common.files import sha256_hex
from signalserve.common.key import MAX_LENGTH, Key
from signalserve.lab.actions import Actions, Done
from signalserve.lab.api.asking import ModelId, Status, TheLab
from signalserve.lab.api.problems import BadQueryError
from signalserve.lab.identity import CurrentUser
from signalserve.lab.pages.confirm import Confirmation, attempted, shown
from signalserve.lab.pages.formats import path_part
from signalserve.lab.pages.forms import Reason, RequestId
from signalserve.lab.pages.refusals import Refusal, changed_meanwhile, missing
from signalserve.lab.pages.rendering import query_string
from signalserve.lab.parts import Lab
from signalserve.lab.server import ServerState
from signalserve.registry import Status as Stage

router = APIRouter(include_in_schema=False)

_MOST = 500
Name = Annotated[str, Query(min_length=1, max_length=MAX_LENGTH)]
FormName = Annotated[str, Form(max_length=MAX_LENGTH)]
Tick = Annotated[bool, Form()]


@router.get("/models/{model_id}/promote")
def ask_promote(request: Request, lab: TheLab, server: Status, model_id: ModelId) -> Response:
    """What a promote would change."""
    return shown(request, _promote(lab, server, model_id), server)


@router.post("/models/{model_id}/promote")
def promote(
    request: Request,
    lab: TheLab,
    user: CurrentUser,
    server: Status,
    model_id: ModelId,
    request_id: RequestId,
    expected_production_model_id: FormName = "",
    reason: Reason = "",
    force: Tick = False,
) -> Response:
    """Put a model into production, if what is there now is still what the form showed."""

    def do() -> Done:
        promotion = (model_id, expected_production_model_id)
        return Actions(lab.server).promote(
            [promotion], user, reason=reason.strip(), force=force, request_id=request_id
        )

    objection = None
    if force and not reason.strip():
        objection = missing("a promote past the gate needs a reason; it is kept in the audit log")
    return attempted(
        request,
        server,
        lambda: _promote(lab, server, model_id),
        do,
        request_id=request_id,
        reason="" if force else reason,
        objection=objection,
    )


@router.get("/rollback")
def ask_rollback(request: Request, lab: TheLab, server: Status, symbol: Name, timeframe: Name) -> Response:
    """What a rollback would change."""
    return shown(request, _rollback(lab, server, Key(symbol, timeframe)), server)


@router.post("/rollback")
def rollback(
    request: Request,
    lab: TheLab,
    user: CurrentUser,
    server: Status,
    symbol: FormName,
    timeframe: FormName,
    since: Annotated[int, Form(ge=0)] = 0,
    target: FormName = "",
    current: FormName = "",
    reason: Reason = "",
) -> Response:
    """Take a key back to the model before, if that is still the one that the form showed.

    The request_id is made of what was shown, so that two who confirm the same rollback go one model back, not two.
    """
    key = Key(symbol, timeframe)
    request_id = f"lab-{sha256_hex(repr((symbol, timeframe, since, target)).encode())[:32]}"

    def do() -> Done:
        return Actions(lab.server).rollback(
            [key], user, reason=reason.strip(), expected=[current], request_id=request_id
        )

    objection: Refusal | None = None
    if not reason.strip():
        objection = missing("a rollback needs a reason; it is kept in the audit log")
    elif not _is_repeated(lab, request_id) and (_target_of(lab, key), _since(lab, key)) != (target, since):
        objection = changed_meanwhile("another model would come back than the one that was shown")
    return attempted(
        request,
        server,
        lambda: _rollback(lab, server, key),
        do,
        request_id=request_id,
        reason=reason,
        objection=objection,
    )


@router.get("/archive")
def ask_archive(
    request: Request,
    lab: TheLab,
    server: Status,
    model_ids: Annotated[tuple[Name, ...], Query(alias="model", max_length=_MOST)] = (),
) -> Response:
    """What an archive would change."""
    if not model_ids:
        raise BadQueryError("choose the models to archive in the table first")
    return shown(request, _archive(lab, server, model_ids), server)


@router.post("/archive")
def archive(
    request: Request,
    lab: TheLab,
    user: CurrentUser,
    server: Status,
    model_ids: Annotated[list[str], Form(alias="model", min_length=1, max_length=_MOST)],
    request_id: RequestId,
    reason: Reason = "",
    allow_unserved: Tick = False,
) -> Response:
    """Retire models, all or none."""

    def do() -> Done:
        return Actions(lab.server).archive(
            model_ids,
            user,
            reason=reason.strip(),
            allow_unserved=allow_unserved,
            request_id=request_id,
        )

    objection = None
    if allow_unserved and not reason.strip():
        objection = missing("to leave a key with nothing in production needs a reason; it is kept in the log")
    return attempted(
        request,
        server,
        lambda: _archive(lab, server, tuple(model_ids)),
        do,
        request_id=request_id,
        reason=reason,
        objection=objection,
    )


def _promote(lab: Lab, server: ServerState, model_id: str) -> Confirmation:
    preview = lab.previews.promote([model_id], server.served)
    previous = preview.steps[0].previous
    return Confirmation(
        title=f"Promote {model_id}",
        verb="Promote",
        path=f"/models/{path_part(model_id)}/promote",
        back=f"/models/{path_part(model_id)}",
        preview=preview,
        hidden={"expected_production_model_id": previous.model_id if previous is not None else ""},
    )


def _rollback(lab: Lab, server: ServerState, key: Key) -> Confirmation:
    preview = lab.previews.rollback([key], server.served)
    step = preview.steps[0]
    current = step.previous.model_id if step.previous is not None else ""
    target = step.model.model_id if step.model is not None else ""
    return Confirmation(
        title=f"Roll back {key}",
        verb="Roll back",
        path="/rollback" + query_string([("symbol", key.symbol), ("timeframe", key.timeframe)]),
        back=f"/models/{path_part(current)}" if current else "/",
        preview=preview,
        hidden={
            "symbol": key.symbol,
            "timeframe": key.timeframe,
            "target": target,
            "current": current,
            "since": str(_since(lab, key)),
        },
    )


def _archive(lab: Lab, server: ServerState, model_ids: tuple[str, ...]) -> Confirmation:
    wanted = tuple(dict.fromkeys(model_ids))
    single = len(wanted) == 1
    return Confirmation(
        title=f"Archive {wanted[0]}" if single else f"Archive {len(wanted)} models",
        verb="Archive",
        path="/archive" + query_string([("model", model_id) for model_id in wanted]),
        back=f"/models/{path_part(wanted[0])}" if single else "/",
        preview=lab.previews.archive(wanted, server.served),
        hidden={"model": wanted},
    )


def _target_of(lab: Lab, key: Key) -> str:
    model = lab.previews.rollback([key]).steps[0].model
    return model.model_id if model is not None else ""


def _since(lab: Lab, key: Key) -> int:
    """The revision since which what is in production of a key is there; 0 where no event says so."""
    current = lab.registry.standing(lab.registry.state, key)
    for event in reversed(lab.trail.events()):
        if any(
            change.model_id == current and change.before != change.after == Stage.PRODUCTION
            for change in event.changes
        ):
            return event.revision
    return 0


def _is_repeated(lab: Lab, request_id: str) -> bool:
    """Whether the form was sent before: its repeat finds another target, and changes nothing."""
    return request_id in lab.registry.state.requests
