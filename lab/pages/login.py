"""Log in with a token, and out again."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Query
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from signalserve.access.errors import AccessError
from signalserve.lab.identity import Doorkeeper
from signalserve.lab.pages.rendering import rendered

router = APIRouter(include_in_schema=False)

_LONGEST = 2_000


@router.get("/login")
def ask(request: Request, next: Annotated[str, Query(max_length=_LONGEST)] = "") -> Response:  # noqa: A002 - its name in the address
    """The form."""
    return _form(request, next)


@router.post("/login")
async def login(
    request: Request,
    token: Annotated[str, Form(max_length=_LONGEST)] = "",
    next: Annotated[str, Form(max_length=_LONGEST)] = "",  # noqa: A002 - as above
) -> Response:
    """Open a session, and lead on to where its owner wanted to go."""
    door: Doorkeeper = request.app.state.door
    try:
        session = await door.login(request, "POST /login", token.strip())
    except AccessError as error:
        return _form(request, next, str(error), 401)
    answer = RedirectResponse(own_place(next), 303)
    door.sessions.set(answer, session)
    return answer


@router.post("/logout")
def logout(request: Request) -> Response:
    """End the session."""
    door: Doorkeeper = request.app.state.door
    answer = RedirectResponse("/", 303)
    door.sessions.clear(answer)
    return answer


def own_place(address: str) -> str:
    """An address of the lab's own; its first page for any other, to which a link could lead somebody astray."""
    is_own = address.startswith("/") and not address.startswith(("//", "/\\")) and address.isprintable()
    return address if is_own and address.isascii() else "/"


def _form(request: Request, where_to: str, problem: str = "", status: int = 200) -> Response:
    return rendered(
        request,
        "login.html.j2",
        page="",
        status=status,
        problem=problem,
        next=own_place(where_to) if where_to else "",
    )
