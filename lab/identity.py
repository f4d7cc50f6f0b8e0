"""Who asks: what a request shows, whom that makes them, and what the table lets them do.

1. A bearer token or, from a browser, the session that a login with one has opened. One that does not hold is refused
   where it was sent as a header; a session that has ended is a visitor's.
2. A visitor may read where only this machine reaches the lab, and nothing anywhere else.
3. What changes something, and comes from a session, must come from a page of the lab's own.
4. A lab without a token file knows nobody: a bearer token is handed on to the gRPC server, which alone decides.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hmac import compare_digest
from typing import Annotated, Any

from fastapi import Depends
from starlette.requests import Request

from signalserve.access.errors import AccessError, PermissionDeniedError, UnauthenticatedError
from signalserve.access.gatekeeper import Gatekeeper, denied
from signalserve.access.identity import Credential, Role
from signalserve.access.table import Row, row_of
from signalserve.lab.sessions import Session, Sessions

CSRF_FIELD, CSRF_HEADER = "csrf", "x-csrf-token"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN = frozenset({"same-origin", "none"})


@dataclass(frozen=True)
class User:
    """Whoever asks; `name` is empty for a visitor, and for somebody whom only the gRPC server can tell.

    `token` goes to the gRPC server with each call that is made for them; empty for none. `csrf` is what a form of
    theirs carries.
    """

    name: str = ""
    roles: frozenset[Role] = frozenset()
    token: str = field(default="", repr=False)
    csrf: str = field(default="", repr=False)

    @property
    def role(self) -> str:
        """The roles as people read them."""
        return ", ".join(role for role in Role if role in self.roles)

    @property
    def may_change(self) -> bool:
        """Whether they may promote, roll back and archive."""
        return self.may("POST /api/ml/promote")

    def may(self, operation: str) -> bool:
        """Whether the table lets them."""
        roles = row_of(operation).roles
        return roles is None or bool(roles & self.roles)


class Doorkeeper:
    """Tells who asks, and lets in who may.

    Args:
        sessions: of the browsers.
        gatekeeper: knows the tokens; None: nobody is known here.
        visitors_read: whether who shows nothing may read.
    """

    def __init__(self, sessions: Sessions, gatekeeper: Gatekeeper | None, *, visitors_read: bool) -> None:
        self.sessions = sessions
        self._gatekeeper = gatekeeper
        self._visitor = User(roles=frozenset({Role.READ}) if visitors_read else frozenset())

    @property
    def knows_tokens(self) -> bool:
        """Whether a login is possible."""
        return self._gatekeeper is not None

    def credentials(self) -> list[dict[str, Any]]:
        """Who is known, without anything secret."""
        return [] if self._gatekeeper is None else self._gatekeeper.credentials()

    async def admit(self, request: Request, operation: str) -> User:
        """Who asks, where they may do this.

        Raises:
            AccessError: they may not; it was logged, and held back where many such came from there.
        """
        row = row_of(operation)
        try:
            user = self._identify(request)
            self._check(row, user)
            if user.csrf and request.method not in _SAFE:
                await _check_form(request, user)
        except AccessError as error:
            await self._turn_away(error, row, request)
            raise
        return user

    def seen(self, request: Request) -> User:
        """Who asks, whether or not they may; a visitor where that can't be told."""
        known: User | None = getattr(request.state, "user", None)
        if known is not None:
            return known
        try:
            return self._identify(request)
        except AccessError:
            return self._visitor

    async def login(self, request: Request, operation: str, token: str) -> Session:
        """A session for who has the token.

        Raises:
            AccessError: the token is nobody's, or the form is not a page's of the lab.
        """
        row = row_of(operation)
        try:
            if not _is_own(request):
                raise PermissionDeniedError("FOREIGN_FORM", "log in from the lab's own page")
            if self._gatekeeper is None:
                raise _no_token_file()
            self._gatekeeper.identify(Credential(token))
        except AccessError as error:
            await self._turn_away(error, row, request)
            raise
        return self.sessions.begin(token)

    def still(self, request: Request, user: User, operation: str) -> bool:
        """Whether who was let in before would be now; for answers that go on for a while."""
        try:
            return self._identify(request).roles == user.roles and self._may(row_of(operation), user)
        except AccessError:
            return False

    def _identify(self, request: Request) -> User:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if token and scheme.lower() == "bearer":
            return self._known(token.strip())
        session = self.sessions.of(request)
        if session is not None and self._gatekeeper is not None:
            try:
                return self._known(session.token, session.csrf)
            except UnauthenticatedError:  # revoked or expired since the login
                return self._visitor
        return self._visitor

    def _known(self, token: str, csrf: str = "") -> User:
        if self._gatekeeper is None:
            if not token.isascii() or not token.isprintable():
                raise UnauthenticatedError("TOKEN_INVALID", "that is no token")
            if not self._visitor.roles:  # anybody could make one up
                raise _no_token_file()
            return User(roles=frozenset({Role.READ, Role.OPS}), token=token)
        identity = self._gatekeeper.identify(Credential(token))
        return User(identity.name, identity.roles, token, csrf)

    def _may(self, row: Row, user: User) -> bool:
        """Whether the table lets them; somebody who is known may do what a visitor may."""
        return row.roles is None or bool(row.roles & (user.roles | self._visitor.roles))

    def _check(self, row: Row, user: User) -> None:
        if self._may(row, user):
            return
        if not user.token:
            raise UnauthenticatedError(
                "CREDENTIAL_MISSING",
                "log in, or send a token (`Authorization: Bearer TOKEN`); `signalserve token create` makes one",
            )
        raise denied(row, user.name, user.roles)

    async def _turn_away(self, error: AccessError, row: Row, request: Request) -> None:
        if self._gatekeeper is not None:
            address = request.client.host if request.client is not None else "unknown"
            await self._gatekeeper.turn_away(error, row, address, None)


def _no_token_file() -> UnauthenticatedError:
    return UnauthenticatedError(
        "NO_TOKEN_FILE", "this lab knows no tokens: set security.token_file and start it again"
    )


async def admitted(request: Request) -> User:
    """Let a request in by the row of its route; every route depends on this."""
    door: Doorkeeper = request.app.state.door
    user = await door.admit(request, f"{request.method} {request.scope['route'].path}")
    request.state.user = user
    return user


def current_user(request: Request) -> User:
    """Whoever asks, as `admitted` has found them."""
    user: User = request.state.user
    return user


CurrentUser = Annotated[User, Depends(current_user)]


async def _check_form(request: Request, user: User) -> None:
    """A session's cookie comes along from any page, so a change must carry what only our own pages know."""
    shown = request.headers.get(CSRF_HEADER, "")
    kind = request.headers.get("content-type", "")
    if not shown and kind.startswith(("application/x-www-form-urlencoded", "multipart/form-data")):
        value = (await request.form()).get(CSRF_FIELD, "")
        shown = value if isinstance(value, str) else ""
    if not _is_own(request) or not compare_digest(shown.encode(), user.csrf.encode()):
        raise PermissionDeniedError(
            "FOREIGN_FORM", "the form is of another login or another site: open the page again and repeat it"
        )


def _is_own(request: Request) -> bool:
    """Whether a browser says that the request comes from a page of this very address; one that says nothing may."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in _OWN
    origin = request.headers.get("origin")
    return origin is None or origin.rpartition("//")[2] == request.headers.get("host")
