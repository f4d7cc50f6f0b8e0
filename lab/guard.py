"""What holds for every answer: the headers, the names that the lab answers to, and no text of a fault.

1. A Host header that is none of the lab's names is refused: a page of another site that points its own name at this
   machine (DNS rebinding) reaches nothing.
2. Every answer carries the security headers, those of errors included.
3. A request says how long it is, and is not longer than `LONGEST_BODY`: an archive of a thousand models fits.
4. An error that nobody handled becomes a 500 with an incident id; what went wrong stands in the log alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from signalserve.access.exposure import is_loopback
from signalserve.lab.api.problems import incident, problem

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
LONGEST_BODY = 1024 * 1024
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


def allowed_hosts(host: str, stated: Iterable[str]) -> frozenset[str] | None:
    """The names that the lab answers to; None for any, which only an address beyond loopback has by default."""
    names = frozenset(name.lower() for name in stated)
    if names:
        return None if "*" in names else names
    return frozenset(LOOPBACK) if is_loopback(host) else None


class Guard:
    """The outermost layer of the application.

    Args:
        app: what it stands around.
        hosts: as `allowed_hosts` gives them.
        shown: what becomes of an error's answer, such as a page for whoever reads HTML.
    """

    def __init__(
        self,
        app: ASGIApp,
        hosts: frozenset[str] | None,
        shown: Callable[[Request, Response], Response] = lambda request, answer: answer,
    ) -> None:
        self._app = app
        self._hosts = hosts
        self._shown = shown

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let the application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False
        asks_for_head = scope["method"] == "HEAD"
        if asks_for_head:  # as GET, without the body
            scope = {**scope, "method": "GET"}

        async def guarded(message: Message) -> None:
            nonlocal started
            if asks_for_head and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        request = Request(scope, receive)
        host = _name(Headers(scope=scope).get("host", ""))
        if self._hosts is not None and host not in self._hosts:
            # not request.url: it is made of the header that is refused
            text = "this lab does not answer to that name; `lab.allowed_hosts` lists those that it does"
            await problem(request, 400, "UNKNOWN_HOST", text)(scope, receive, guarded)
            return
        refused = _too_long(request)
        if refused is not None:
            await refused(scope, receive, guarded)
            return
        try:
            await self._app(scope, receive, guarded)
        except ClientDisconnect:
            return  # nobody is left to answer
        except Exception as error:
            answer = self._shown(request, incident(request, error))
            if started:  # half an answer is out; the connection's end says so
                raise
            await answer(scope, receive, guarded)


def _too_long(request: Request) -> Response | None:
    """The refusal of a body that is too long, or that does not say how long it is."""
    if "transfer-encoding" in request.headers:  # it goes before a length that is stated beside it
        return problem(
            request, 411, "LENGTH_REQUIRED", "say how long the request is: send Content-Length alone"
        )
    length = request.headers.get("content-length", "")
    if not length:
        return None
    if length.isdecimal() and int(length) <= LONGEST_BODY:
        return None
    return problem(request, 413, "REQUEST_TOO_LONG", f"a request has at most {LONGEST_BODY} bytes")


def _name(host: str) -> str:
    """The name in a Host header, without its port."""
    name = host.strip().lower()
    if name.startswith("["):
        return name[: name.find("]") + 1]
    return name.partition(":")[0]
