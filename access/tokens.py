"""Who is known, and by what: tokens and client certificates, as the token file holds them.

1. A token is `sst_<id>_<secret>`. The file holds its id and the sha256 of a salt and the secret. The secret is 256
   random bits, so nobody can guess it and one hash is enough; a slow one would only slow the calls.
2. A client certificate is known by its subject, as RFC 4514 writes it; which authorities vouch for it is TLS' affair.
3. A name may have several tokens, so that a new one can be handed out before the old one is revoked.
4. What was revoked stays, so that an id in a log can still be looked up.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import Any

from cryptography import x509

from signalserve.access.errors import UnauthenticatedError
from signalserve.access.identity import Credential, Identity, Role
from signalserve.common.moments import parse_moment, second_text, utc_now

_TOKEN = re.compile(r"sst_(?P<id>[0-9a-f]{8})_(?P<secret>[A-Za-z0-9_-]{43})")
_HEX = re.compile(r"[0-9a-f]{2,}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


@dataclass(frozen=True)
class Entry:
    """One credential: a token by `salt` and `hash` (hex), or a certificate by its `subject`."""

    id: str
    name: str
    roles: tuple[Role, ...]
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    salt: str = ""
    hash: str = ""
    subject: str = ""

    @property
    def kind(self) -> str:
        """`token` or `certificate`."""
        return "certificate" if self.subject else "token"

    def state(self, now: datetime) -> str:
        """`active`, `expired` or `revoked`."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"

    def matches(self, secret: str) -> bool:
        """Whether this is the token's secret, in constant time."""
        return hmac.compare_digest(_hashed(self.salt, secret), self.hash)

    @property
    def identity(self) -> Identity:
        """Whom it stands for."""
        return Identity(self.name, frozenset(self.roles), self.id)

    def public(self) -> dict[str, Any]:
        """What anybody may read of it."""
        times = {name: getattr(self, name) for name in ("created_at", "expires_at", "revoked_at")}
        return {
            "id": self.id,
            "name": self.name,
            "roles": [str(role) for role in self.roles],
            "kind": self.kind,
            **({"subject": self.subject} if self.subject else {}),
            **{name: None if time is None else second_text(time) for name, time in times.items()},
        }

    def to_dict(self) -> dict[str, Any]:
        """For the file."""
        return {**self.public(), **({} if self.subject else {"salt": self.salt, "hash": self.hash})}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Entry:
        """From the file.

        Raises:
            KeyError, TypeError, ValueError: it is not what `to_dict` gives.
        """
        texts = {name: values.get(name, "") for name in ("salt", "hash", "subject")}
        if not all(isinstance(text, str) for text in (values["id"], values["name"], *texts.values())):
            raise TypeError("id, name, salt, hash and subject are texts")
        if bool(texts["subject"]) == bool(texts["salt"] and texts["hash"]):
            raise ValueError("it has a salt and a hash, or a subject")
        if texts["subject"]:
            subject_named(texts["subject"])
        elif not (_HEX.fullmatch(texts["salt"]) and _HEX.fullmatch(texts["hash"])):
            raise ValueError("salt and hash are hexadecimal")
        return cls(
            id=values["id"],
            name=checked_name(values["name"]),
            roles=checked_roles(values["roles"]),
            created_at=parse_moment(values["created_at"]),
            expires_at=_moment(values.get("expires_at")),
            revoked_at=_moment(values.get("revoked_at")),
            **texts,
        )


# compared with where no such id is known, so that an unknown id takes as long as a wrong secret
_NOBODY = Entry("", "nobody", (), utc_now(), salt="00" * 16, hash="00" * 32)


class TokenBook:
    """What a token file holds, in memory."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self.entries = tuple(entries)
        self._tokens = {entry.id: entry for entry in self.entries if entry.kind == "token"}
        self._subjects: dict[x509.Name, list[Entry]] = {}
        for entry in self.entries:
            if entry.kind == "certificate":
                self._subjects.setdefault(_subject(entry.subject), []).append(entry)
        self._by_id = {entry.id: entry for entry in self.entries}
        if len(self._by_id) != len(self.entries):
            raise ValueError("an id stands twice")

    def identify(self, credential: Credential) -> Identity:
        """Whom a credential stands for; a token goes before a certificate.

        Raises:
            UnauthenticatedError: nobody's, or not any more.
        """
        if credential.token:
            return self._of_token(credential.token)
        if credential.certificate:
            return self._of_certificate(credential.certificate)
        raise UnauthenticatedError(
            "CREDENTIAL_MISSING", "this server asks who calls: send a bearer token, as --token-file does"
        )

    def holds(self, identity: Identity) -> bool:
        """Whether an identity that was given out before still stands, with the same roles."""
        entry, now = self._by_id.get(identity.credential_id), utc_now()
        if identity.until is not None and identity.until <= now:
            return False
        return (
            entry is not None
            and entry.state(now) == "active"
            and replace(entry.identity, until=identity.until) == identity
        )

    def _of_token(self, token: str) -> Identity:
        found = _TOKEN.fullmatch(token)
        entry = self._tokens.get(found["id"]) if found else None
        right = (entry or _NOBODY).matches(found["secret"] if found else token)
        if entry is None or not right:
            raise UnauthenticatedError("TOKEN_INVALID", "the token is not known here")
        if entry.revoked_at is not None:  # told only to who has the secret
            raise UnauthenticatedError("TOKEN_REVOKED", f"the token {entry.id} of {entry.name} was revoked")
        if entry.state(utc_now()) == "expired":
            raise UnauthenticatedError("TOKEN_EXPIRED", f"the token {entry.id} of {entry.name} has expired")
        return entry.identity

    def _of_certificate(self, certificate: bytes) -> Identity:
        subject, ends = shown_by(certificate)
        entries = self._subjects.get(subject, [])
        now = utc_now()
        if ends <= now:  # TLS has looked when the connection began
            raise UnauthenticatedError(
                "CERTIFICATE_EXPIRED", f"the client certificate ended at {ends:%Y-%m-%d %H:%M}Z"
            )
        for entry in entries:
            if entry.state(now) == "active":
                return replace(entry.identity, until=ends)
        text = subject.rfc4514_string()
        reason = f"CERTIFICATE_{entries[-1].state(now).upper()}" if entries else "CERTIFICATE_UNKNOWN"
        raise UnauthenticatedError(
            reason, f"the client certificate's subject {text!r} has no role here", {"subject": text}
        )


def with_new_token(entry: Entry) -> tuple[Entry, str]:
    """The entry with a new token's salt and hash, and the token."""
    secret, salt = secrets.token_urlsafe(32), secrets.token_hex(16)
    return replace(entry, salt=salt, hash=_hashed(salt, secret)), f"sst_{entry.id}_{secret}"


def checked_name(name: str) -> str:
    """The name, where it is one: no space, colon or bracket, which mark what is local or unverified in the log.

    Raises:
        ValueError: it is none.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is no name: 1 to 64 letters, digits and . _ @ -, the first a letter or digit"
        )
    return name


def checked_roles(roles: Iterable[str]) -> tuple[Role, ...]:
    """The roles, each once.

    Raises:
        ValueError: one is none, or there is none.
    """
    names = [] if isinstance(roles, str) else list(roles)
    unknown = [name for name in names if name not in tuple(Role)]
    if unknown or not names:
        raise ValueError(f"{unknown[0] if unknown else roles!r} is no role; there are {', '.join(Role)}")
    return tuple(dict.fromkeys(Role(name) for name in names))


def subject_named(text: str) -> str:
    """A subject in the one form that the file has it in (RFC 4514).

    Raises:
        ValueError: it is no subject.
    """
    if not (written := _subject(text).rfc4514_string()):
        raise ValueError("it is empty")
    return written


@lru_cache(maxsize=1024)
def shown_by(certificate: bytes) -> tuple[x509.Name, datetime]:
    """The subject of a certificate (PEM) and its last moment.

    Raises:
        ValueError: it is none.
    """
    known = x509.load_pem_x509_certificate(certificate)
    return known.subject, known.not_valid_after_utc


def _subject(text: str) -> x509.Name:
    return x509.Name.from_rfc4514_string(text)


def _hashed(salt: str, secret: str) -> str:
    return hashlib.sha256(f"{salt}{secret}".encode()).hexdigest()


def _moment(text: Any) -> datetime | None:
    return None if text is None else parse_moment(text)
