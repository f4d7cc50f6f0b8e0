"""Who asks: what they show, and who that makes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class Role(StrEnum):
    """What somebody is trusted with; `access.table` says what that is.

    `predict`: a live engine. `read`: a researcher who looks. `ops`: whoever decides about production.
    `admin`: also who else may.
    """

    PREDICT = "predict"
    READ = "read"
    OPS = "ops"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Credential:
    """What a call shows: a bearer token, a client certificate (PEM) that TLS has verified, or neither."""

    token: str = field(default="", repr=False)
    certificate: bytes = b""


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody known: the name that the audit log keeps, and their roles.

    `credential_id` is the token's or certificate's number in the token file, never a secret; `until` a certificate's
    last moment.
    """

    name: str
    roles: frozenset[Role]
    credential_id: str
    until: datetime | None = None
