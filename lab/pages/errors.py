"""Errors as pages, for whoever reads HTML: what is wrong, what to do, and the way back.

A problem document is what every error of the lab is; this dresses it. Below /api/ it stays what it is.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from signalserve.lab.api.problems import MEDIA_TYPE
from signalserve.lab.pages.rendering import rendered

_ADVICE = {
    401: "Log in, then open the page again.",
    403: "Ask whoever runs this lab for a token of another role, or open the page anew.",
    404: "It may have been deleted since, or its name is mistyped.",
    429: "Wait a moment, then load the page again.",
    500: "Nothing was changed by this page. The lab's log has the details under the incident's id.",
    503: "The lab goes on trying; load the page again once this is mended.",
}


def as_page(request: Request, answer: Response, reason: str | None = None) -> Response:
    """The answer; a page where it is a problem and its reader wants HTML.

    `reason` is what somebody had typed in a form that was refused before it was looked at; None: no form was.
    """
    if answer.media_type != MEDIA_TYPE or not wants_html(request):
        return answer
    found: dict[str, Any] = json.loads(bytes(answer.body))
    status = answer.status_code
    if status == 401 and request.method == "GET" and request.app.state.door.knows_tokens:
        asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"/login?next={quote(asked, safe='')}", 303)
    page = rendered(
        request,
        "error.html.j2",
        page="",
        status=status,
        problem=found,
        advice=_ADVICE.get(status, ""),
        undone=None if reason is None else {"reason": reason},
    )
    for name in ("retry-after", "www-authenticate", "allow"):
        if name in answer.headers:
            page.headers[name] = answer.headers[name]
    return page


def wants_html(request: Request) -> bool:
    """Whether a browser asks for a page."""
    return not request.url.path.startswith("/api/") and "text/html" in request.headers.get("accept", "")


def dress_errors(app: FastAPI) -> None:
    """Let every handler that the application has answer with a page where one is wanted."""
    for kind, handler in list(app.exception_handlers.items()):
        app.exception_handlers[kind] = _dressed(handler)


def _dressed(handler: Callable[..., Any]) -> Callable[..., Awaitable[Response]]:
    async def dressed(request: Request, error: Exception) -> Response:
        answer: Response = await handler(request, error)
        return as_page(request, answer, await _typed(request) if answer.status_code in (401, 403) else None)

    return dressed


async def _typed(request: Request) -> str | None:
    """The reason in a form, so that it is not lost with it; None where the request is no form."""
    if request.method != "POST" or not wants_html(request) or request.url.path in ("/login", "/logout"):
        return None
    try:
        reason = (await request.form()).get("reason", "")
    except (HTTPException, RuntimeError):  # it can't be read, or was read by somebody else
        return ""
    return reason[:2_000] if isinstance(reason, str) else ""
