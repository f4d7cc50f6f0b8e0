"""Who asks: the one seam between the lab and identity.

An `Identify` reads a request and says who it is. The default takes a bearer token as it comes and hands it on to the
gRPC server, which alone decides what its owner may do; who sends none may read, and change nothing. A cookie is never
read here, so another site's page can't make a browser change anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import Request

_SCHEME = "bearer "


class UnauthenticatedError(Exception):
    """Nobody is logged in, or not with what is asked for; the text says what to do."""


@dataclass(frozen=True)
class User:
    """Whoever asks. `token` goes to the gRPC server with each call that is made for them; empty for none."""

    name: str = ""
    role: str = "read"
    token: str = ""
    may_read: bool = True
    may_change: bool = False

    def __repr__(self) -> str:
        return f"User({self.name!r}, {self.role!r})"  # never the token


Identify = Callable[[Request], User]
"""Raises UnauthenticatedError where who asks must not even read."""


def bearer(request: Request) -> User:
    """The default: a token is the server's to judge; without one, reading only."""
    header = request.headers.get("authorization", "")
    token = header[len(_SCHEME) :].strip() if header.lower().startswith(_SCHEME) else ""
    return User(name="", role="bearer", token=token, may_change=True) if _sendable(token) else User()


def current_user(request: Request) -> User:
    """Whoever asks, by the application's `Identify`.

    Raises:
        UnauthenticatedError: they must not read.
    """
    identify: Identify = request.app.state.identify
    user = identify(request)
    if not user.may_read:
        raise UnauthenticatedError("log in to see the models")
    return user


def changing_user(request: Request) -> User:
    """As `current_user`, for what changes the registry.

    Raises:
        UnauthenticatedError: they must not change anything.
    """
    user = current_user(request)
    if not user.may_change:
        raise UnauthenticatedError(
            "to change the registry send a token: `Authorization: Bearer TOKEN`; `signalserve token create` makes one"
        )
    return user


def _sendable(token: str) -> bool:
    """Whether a token can stand in a header of the call to the server."""
    return bool(token) and token.isascii() and token.isprintable()
