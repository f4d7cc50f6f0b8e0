"""The token file on disk, for whoever changes it: replaced as a whole, under a lock, its owner's alone to read."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from signalserve.access.errors import AccessSetupError
from signalserve.access.followed import LARGEST
from signalserve.access.tokens import (
    Entry,
    TokenBook,
    checked_name,
    checked_roles,
    subject_named,
    with_new_token,
)
from signalserve.common.files import read_regular, write_atomically
from signalserve.common.moments import utc_now

FORMAT = 1
_LOCK_SECONDS = 10.0


def read_tokens(path: Path) -> TokenBook:
    """What a token file holds.

    Raises:
        AccessSetupError: it is missing, can't be read, or is no token file.
    """
    try:
        document = json.loads(read_regular(path, largest=LARGEST))
        if document["format"] != FORMAT:
            raise ValueError(f"its format is {document['format']!r}; this version reads {FORMAT}")
        return TokenBook(Entry.from_dict(values) for values in document["tokens"])
    except FileNotFoundError as error:
        raise AccessSetupError(
            f"there is no token file {path}",
            f"`signalserve token create --token-file {path} --role ops --name NAME` makes one",
        ) from error
    except OSError as error:
        raise AccessSetupError(f"{path} can't be read: {error.strerror or error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise AccessSetupError(f"{path} is no token file: {error}") from error


class TokenFile:
    """Creates and revokes what the file holds."""

    def __init__(self, path: Path) -> None:
        # a link's target is replaced, and not the link
        self.path = Path(os.path.realpath(path))

    def create(
        self, name: str, roles: Iterable[str], *, expires_at: datetime | None = None
    ) -> tuple[Entry, str]:
        """Add a token; gives its entry and the token itself, which nobody can read again.

        Raises:
            AccessSetupError: name or roles are none, or the file can't be written.
        """
        token = ""

        def prove(entry: Entry) -> Entry:
            nonlocal token
            entry, token = with_new_token(entry)
            return entry

        return self._add(name, roles, expires_at, prove), token

    def admit_certificate(
        self, name: str, roles: Iterable[str], subject: str, *, expires_at: datetime | None = None
    ) -> Entry:
        """Add a client certificate by its subject (RFC 4514, such as `CN=engine-1,O=desk`).

        Raises:
            AccessSetupError: name, roles or subject are none, or the file can't be written.
        """
        try:
            text = subject_named(subject)
        except ValueError as error:
            raise AccessSetupError(
                f"{subject!r} is no subject ({error}); one reads like CN=engine-1,O=desk"
            ) from error
        return self._add(name, roles, expires_at, lambda entry: replace(entry, subject=text))

    def revoke(self, id_or_name: str) -> list[Entry]:
        """Revoke what has this id, else all that this name has; gives what was revoked now.

        Raises:
            AccessSetupError: nobody has it, or the file can't be written.
        """
        with self._locked():
            entries = read_tokens(self.path).entries
            hit = [entry for entry in entries if entry.id == id_or_name]
            hit = hit or [entry for entry in entries if entry.name == id_or_name]
            if not hit:
                raise AccessSetupError(f"{self.path} holds nothing of {id_or_name!r}")
            now = utc_now()
            revoked = {entry.id: replace(entry, revoked_at=now) for entry in hit if entry.revoked_at is None}
            self._write([revoked.get(entry.id, entry) for entry in entries])
        return list(revoked.values())

    def _add(
        self,
        name: str,
        roles: Iterable[str],
        expires_at: datetime | None,
        prove: Callable[[Entry], Entry],
    ) -> Entry:
        try:
            known = checked_name(name), checked_roles(roles)
        except ValueError as error:
            raise AccessSetupError(str(error)) from error
        if expires_at is not None and expires_at <= utc_now():
            raise AccessSetupError("it would have expired already")
        with self._locked():
            entries = read_tokens(self.path).entries if self.path.exists() else ()
            number = secrets.token_hex(4)
            while number in {entry.id for entry in entries}:
                number = secrets.token_hex(4)
            entry = prove(Entry(number, *known, utc_now(), expires_at))
            self._write([*entries, entry])
        return entry

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = FileLock(self.path.with_name(f".{self.path.name}.lock"), timeout=_LOCK_SECONDS)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout as error:
            raise AccessSetupError(f"{self.path} is being changed by another process; try again") from error
        except OSError as error:
            raise AccessSetupError(f"{self.path} can't be written: {error.strerror or error}") from error
        try:
            yield
        finally:
            lock.release()

    def _write(self, entries: Iterable[Entry]) -> None:
        rows = [entry.to_dict() for entry in entries]
        TokenBook(Entry.from_dict(row) for row in rows)  # nothing is written that can't be read again
        document = {"format": FORMAT, "tokens": rows}
        try:
            write_atomically(self.path, (json.dumps(document, indent=2) + "\n").encode(), private=True)
        except OSError as error:
            raise AccessSetupError(f"{self.path} can't be written: {error.strerror or error}") from error
