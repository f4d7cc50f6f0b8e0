"""Sessions: a login that a browser carries in a cookie, and no worker has to remember.

1. The cookie is the token, a random value for forms and the time, encrypted and signed (Fernet) by a key that all
   workers read from one file. So nothing of it can be read or made up, and the secret stands in no address and no log.
2. It is HttpOnly and SameSite=Lax, and Secure where the lab speaks TLS.
3. It ends after some hours, and at once when its token does: the token is looked at in each request. A logout takes the
   cookie back from the browser; who kept a copy ends it by revoking the token.
"""

from __future__ import annotations

import json
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken
from starlette.requests import Request
from starlette.responses import Response

from signalserve.access.errors import AccessSetupError
from signalserve.common.files import read_regular, sha256_hex


@dataclass(frozen=True)
class Session:
    """A login."""

    token: str = field(repr=False)
    csrf: str = field(repr=False)


class Sessions:
    """Makes and reads the cookie.

    Args:
        key: as `session_key` gives it.
        seconds: how long a session lasts.
        secure: whether the lab speaks TLS.
    """

    def __init__(self, key: bytes, seconds: float, *, secure: bool) -> None:
        self._box = Fernet(key)
        self._seconds = int(seconds)
        self._secure = secure
        # cookies know no ports: another lab on this machine must not take this one's for its own
        self._name = f"{'__Host-' if secure else ''}signalserve-{sha256_hex(key)[:8]}"

    def begin(self, token: str) -> Session:
        """A new session of who has this token."""
        return Session(token, secrets.token_urlsafe(24))

    def of(self, request: Request) -> Session | None:
        """The session of a request; None where it has none, or one that has ended."""
        cookie = request.cookies.get(self._name, "")
        if not cookie:
            return None
        with suppress(InvalidToken, ValueError, KeyError, TypeError):
            values = json.loads(self._box.decrypt(cookie, ttl=self._seconds))
            return Session(str(values["token"]), str(values["csrf"]))
        return None

    def set(self, response: Response, session: Session) -> None:
        """Hand the session to the browser."""
        content = json.dumps({"token": session.token, "csrf": session.csrf}).encode()
        response.set_cookie(
            self._name,
            self._box.encrypt(content).decode(),
            max_age=self._seconds,
            path="/",
            secure=self._secure,
            httponly=True,
            samesite="lax",
        )

    def clear(self, response: Response) -> None:
        """Take it back."""
        response.delete_cookie(self._name, path="/", secure=self._secure, httponly=True, samesite="lax")


def session_key(path: Path) -> bytes:
    """The key in a file, which is made where it is missing, for its owner alone to read.

    Raises:
        AccessSetupError: it can't be made or read, or holds no key.
    """
    try:
        if path.exists():
            return _read_key(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(Fernet.generate_key())
            with suppress(FileExistsError):  # another worker was first, and its key is the one
                os.link(aside, path)
        finally:
            aside.unlink()
        return _read_key(path)
    except OSError as error:
        raise AccessSetupError(
            f"{path} can't be used for the sessions' key: {error.strerror or error}"
        ) from error
    except ValueError as error:
        raise AccessSetupError(
            f"{path} holds no session key; remove it, and the lab makes another"
        ) from error


def _read_key(path: Path) -> bytes:
    key = read_regular(path, largest=1_000).strip()
    Fernet(key)
    return key
