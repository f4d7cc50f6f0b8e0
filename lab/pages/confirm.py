"""The one confirmation of every change: what it will do, the form that does it, and what came of it.

1. The form carries a request_id of its own, so that a double click does it once; one whose answer was lost goes out
   again under the same. A rollback's is made of what was shown, so that two who confirm the same one do it once.
2. What was refused is shown with its numbers on a fresh look at the registry. Force is offered by that page alone.
3. What was done is told by the event that it made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from signalserve.client import SignalServeError
from signalserve.lab.actions import Done
from signalserve.lab.pages.forms import new_request_id
from signalserve.lab.pages.refusals import Refusal, refusal_of
from signalserve.lab.pages.rendering import rendered
from signalserve.lab.preview import Preview
from signalserve.lab.server import ServerState


@dataclass(frozen=True)
class Confirmation:
    """What a form asks before it does something.

    `path` is where it is sent and shown, `back` where the way out leads; `hidden` are its fields that nobody types.
    """

    title: str
    verb: str
    path: str
    back: str
    preview: Preview
    hidden: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)


def shown(
    request: Request,
    confirmation: Confirmation,
    server: ServerState,
    *,
    refusal: Refusal | None = None,
    request_id: str = "",
    reason: str = "",
) -> Response:
    """The confirmation, with what stood in the way of the last attempt."""
    return rendered(
        request,
        "confirm.html.j2",
        page="models",
        server=server,
        status=refusal.status if refusal is not None else 200,
        confirmation=confirmation,
        refusal=refusal,
        request_id=request_id if refusal is not None and refusal.may_repeat else new_request_id(),
        force_request_id=new_request_id(),
        reason=reason,
    )


def attempted(
    request: Request,
    server: ServerState,
    confirmation: Callable[[], Confirmation],
    do: Callable[[], Done],
    *,
    request_id: str,
    reason: str,
    objection: Refusal | None = None,
) -> Response:
    """Do it and lead to its event; or show the confirmation again with what stands in the way."""
    refusal = objection
    if refusal is None:
        try:
            done = do()
        except SignalServeError as error:
            refusal = refusal_of(error)
        else:
            return RedirectResponse(f"/events/{done.registry_revision}?done={done.action}", 303)
    return shown(request, confirmation(), server, refusal=refusal, request_id=request_id, reason=reason)
