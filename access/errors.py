"""What access refuses, in one tree that knows no protocol.

AccessError
├── UnauthenticatedError   no credential, or one that is unknown, revoked or expired
├── PermissionDeniedError  a good credential, and none of its roles may do this
└── AccessSetupError       the files or settings behind it can't be used: nothing starts
"""

from __future__ import annotations

from collections.abc import Mapping


class AccessError(Exception):
    """Root of the tree. `reason` is for programs, the text says what to do, `metadata` holds the facts."""

    def __init__(self, reason: str, message: str, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.metadata = dict(metadata or {})


class UnauthenticatedError(AccessError):
    """Nobody knows who asks."""


class PermissionDeniedError(AccessError):
    """It is known who asks, and they may not."""


class AccessSetupError(AccessError):
    """A token file, certificate or setting can't be used.

    `fact` is the text without the advice for who starts something.
    """

    def __init__(self, fact: str, advice: str = "") -> None:
        super().__init__("ACCESS_SETUP", f"{fact}; {advice}" if advice else fact)
        self.fact = fact
