"""The bearer token: a text, a function that gives the present one, or a file that is followed."""

import logging
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import TypeAlias

_LOOK_SECONDS = 0.25

_log = logging.getLogger("signalserve.client")

Token: TypeAlias = str | Path | Callable[[], str] | None
"""A bearer token, a file that holds one, or what returns the present one, asked at every call."""


class TokenFile:
    """A file with a token; one that is replaced is taken within a quarter of a second, a bad one is not."""

    def __init__(self, path: Path) -> None:
        """Read it.

        Raises:
            OSError: it can't be read.
            ValueError: it holds no token.
        """
        self._path = path
        self._next_look = monotonic() + _LOOK_SECONDS
        self._changed = self._look()
        self._problem = ""
        self._token = self._read()

    def __call__(self) -> str:
        """The present token."""
        if monotonic() >= self._next_look:
            self._next_look = monotonic() + _LOOK_SECONDS
            changed = self._look()
            if changed != self._changed:
                self._renew(changed)
        return self._token

    def _renew(self, changed: tuple[int, int, int] | None) -> None:
        try:
            self._token = self._read()
        except (OSError, ValueError) as error:
            # it is tried again at each look: the disk may be what kept us from it, and no change of the file
            if str(error) != self._problem:
                _log.warning("the token file changed and can't be used, the token before stays: %s", error)
            self._problem = str(error)
        else:
            self._changed, self._problem = changed, ""

    def _look(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ctime_ns, found.st_ino

    def _read(self) -> str:
        token = self._path.read_text(encoding="utf-8", errors="replace").strip()
        return checked_token(token, str(self._path))


def token_source(token: Token) -> Callable[[], str] | None:
    """What gives the present token; None for none.

    Raises:
        OSError, ValueError: the file can't be read, or what it holds is no token.
    """
    if token is None or token == "":
        return None
    if isinstance(token, Path):
        return TokenFile(token)
    if isinstance(token, str):
        fixed = checked_token(token.strip(), "token")
        return lambda: fixed
    return token


def checked_token(token: str, what: str) -> str:
    """The token, where it can travel in a header; an error never holds it.

    Raises:
        ValueError: it can't.
    """
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError(f"{what} holds no token: one is a single word of ASCII characters")
    return token
