"""What every form of the pages keeps.

1. A POST must come from a page of this very origin: the browser says so in `Sec-Fetch-Site`, or in `Origin` where it
   does not send that (plain HTTP beyond loopback). One that says neither is refused.
2. Where users log in, the form's token must be the session's too. `request.app.state.sessions` has it: an object with
   `csrf_token(request) -> str` and `is_csrf_token(request, token) -> bool`.
3. A form carries a request_id that was made with it, so that what is sent twice is done once.
"""

from __future__ import annotations

import uuid
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Depends, Form
from starlette.exceptions import HTTPException
from starlette.requests import Request

LONGEST_REASON = 2_000


def csrf_token(request: Request) -> str:
    """The token for a form of whoever asks; empty where nobody can log in."""
    sessions = _sessions(request)
    return "" if sessions is None else str(sessions.csrf_token(request))


def may_log_in(request: Request) -> bool:
    """Whether this lab has sessions."""
    return _sessions(request) is not None


def new_request_id() -> str:
    """One for one form."""
    return f"lab-{uuid.uuid4().hex}"


def check_csrf(request: Request, csrf: Annotated[str, Form(max_length=500)] = "") -> None:
    """Refuse a form that another site sent.

    Raises:
        HTTPException: 403.
    """
    if not is_same_origin(request):
        raise HTTPException(
            403, "this form was not sent by a page of this lab; open the page anew and repeat it"
        )
    sessions = _sessions(request)
    if sessions is not None and not sessions.is_csrf_token(request, csrf):
        raise HTTPException(403, "this form is of another session; open the page anew and repeat it")


def is_same_origin(request: Request) -> bool:
    """Whether the browser says that a page of this origin sent the request."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = urlsplit(request.headers.get("origin", ""))
    return bool(origin.netloc) and origin.netloc == request.headers.get("host", "")


def _sessions(request: Request) -> Any:
    return getattr(request.app.state, "sessions", None)


CheckedForm = Annotated[None, Depends(check_csrf)]
Reason = Annotated[str, Form(max_length=LONGEST_REASON)]
RequestId = Annotated[str, Form(min_length=1, max_length=100)]
