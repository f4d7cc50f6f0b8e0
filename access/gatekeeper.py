"""Who calls, and may they: what stands before every operation.

1. The credential is looked at in each call, so that what was revoked ends with the next one.
2. A long call asks `still` as it goes on: a stream does not outlive the token that opened it.
3. Nothing here waits for a disk.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from typing import Any

import structlog

from signalserve.access.attempts import FailedAttempts
from signalserve.access.errors import AccessError, PermissionDeniedError, UnauthenticatedError
from signalserve.access.followed import Followed
from signalserve.access.identity import Credential, Identity, Role
from signalserve.access.table import Row
from signalserve.access.tokens import TokenBook
from signalserve.common.moments import utc_now

# so that nobody fills the memory with refusals that wait
_MOST_HELD = 256

_log = structlog.get_logger("access")


class Gatekeeper:
    """Lets in who may."""

    def __init__(self, tokens: Followed[TokenBook]) -> None:
        self._tokens = tokens
        self.attempts = FailedAttempts()
        self._held = 0

    @property
    def problem(self) -> str:
        """What is wrong with the token file, "" where nothing is."""
        return self._tokens.problem

    def credentials(self) -> list[dict[str, Any]]:
        """Who is known, without anything secret."""
        now = utc_now()
        return [{**entry.public(), "state": entry.state(now)} for entry in self._tokens.value.entries]

    def identify(self, credential: Credential) -> Identity:
        """Who shows this.

        Raises:
            UnauthenticatedError: nobody that is known.
        """
        return self._tokens.value.identify(credential)

    def admit(self, row: Row, credential: Credential) -> Identity | None:
        """Who shows this, where they may do what the row says; None where anybody may and nobody is known.

        Raises:
            UnauthenticatedError: nobody that is known.
            PermissionDeniedError: none of their roles may.
        """
        if row.roles is None:
            return None
        identity = self.identify(credential)
        if not identity.roles & row.roles:
            raise denied(row, identity.name, identity.roles)
        return identity

    async def turn_away(self, error: AccessError, row: Row, address: str, longest: float | None) -> None:
        """Log a refusal of `admit`, and hold it back for a while where it is one of many.

        `address` comes without its port. `longest`: seconds after which its caller has given up; None: never. Who
        guesses shall wait, and who erred still learn why.
        """
        if not isinstance(error, UnauthenticatedError):
            if self.attempts.denied(f"{address} {error.metadata.get('name')}"):
                _log.warning("access.denied", address=address, **error.metadata)
            return
        pause = self.attempts.failed(address, row.operation, error.reason)
        if longest is not None:
            pause = min(pause, longest / 2)
        if self._held >= _MOST_HELD:
            return
        self._held += 1
        try:
            await asyncio.sleep(pause)
        finally:
            self._held -= 1

    def still(self, row: Row, identity: Identity | None) -> None:
        """Check again whom `admit` let in before.

        Raises:
            UnauthenticatedError: the credential was revoked, has expired, or has other roles now.
        """
        if identity is not None and not self._tokens.value.holds(identity):
            raise UnauthenticatedError(
                "CREDENTIAL_ENDED",
                f"the credential {identity.credential_id} of {identity.name} was revoked or has expired or changed "
                "while the call was open; open another with the present one",
            )

    def follow(self, seconds: float, ended: threading.Event) -> None:
        """Look at the token file every so many seconds until `ended`."""
        self._tokens.follow(seconds, ended)


def denied(row: Row, name: str, roles: Iterable[Role]) -> PermissionDeniedError:
    """What somebody known is refused with, none of whose roles may do what the row says."""
    held = ", ".join(sorted(roles))
    return PermissionDeniedError(
        "ROLE_MISSING",
        f"{name} has the role {held}, and {row.operation} asks for {row.who}",
        {"name": name, "roles": held, "needed": row.who, "operation": row.operation},
    )
