"""The health of a server, by gRPC's own protocol, `grpc.health.v1`.

Its two messages are a text and a number, and on the wire the same as protobuf's own `StringValue` and `Int32Value`: so
the client needs no package for them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from time import perf_counter
from typing import TYPE_CHECKING, Any

from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from . import requests as build
from .errors import Cancelled, DeadlineExceeded, SignalServeError, Unavailable

if TYPE_CHECKING:
    import grpc

_CHECK = "/grpc.health.v1.Health/Check"
_WATCH = "/grpc.health.v1.Health/Watch"

PAUSE = 0.05
"""Seconds between two watches, where the first one broke."""


class Health(StrEnum):
    """What a server says of itself, of one of its services or of one key."""

    UNKNOWN = "UNKNOWN"
    SERVING = "SERVING"
    NOT_SERVING = "NOT_SERVING"
    SERVICE_UNKNOWN = "SERVICE_UNKNOWN"

    @property
    def ok(self) -> bool:
        """Whether it is SERVING."""
        return self is Health.SERVING

    @classmethod
    def from_proto(cls, message: Int32Value) -> Health:
        """Read the number; one that this client does not know is UNKNOWN."""
        statuses = tuple(cls)  # in the order of the protocol's numbers
        return statuses[message.value] if 0 <= message.value < len(statuses) else cls.UNKNOWN


@dataclass(frozen=True, slots=True)
class HealthStub:
    """The two calls of the health service."""

    check: grpc.UnaryUnaryMultiCallable[StringValue, Int32Value]
    watch: Callable[..., Any]

    @classmethod
    def of(cls, channel: Any) -> HealthStub:
        """The calls over a channel, of either kind."""
        forms = {
            "request_serializer": StringValue.SerializeToString,
            "response_deserializer": Int32Value.FromString,
        }
        return cls(channel.unary_unary(_CHECK, **forms), channel.unary_stream(_WATCH, **forms))


class ReadyWait:
    """A wait for SERVING, as one watch after the other until the deadline; both clients keep to it."""

    def __init__(self, target: str, service: str, deadline_ms: float) -> None:
        self._what = f"{service} at {target}" if service else target
        self._target = target
        self._deadline_ms = deadline_ms
        self._give_up = perf_counter() + build.seconds(deadline_ms)
        self._said: Health | None = None

    def left(self) -> float:
        """The seconds that are left, above 0; DeadlineExceeded where none are."""
        if (left := self._give_up - perf_counter()) <= 0.0:
            raise self._too_late()
        return left

    def serving(self, message: Int32Value) -> bool:
        """Whether this answer ends the wait."""
        self._said = Health.from_proto(message)
        return self._said.ok

    def broke(self, error: SignalServeError, *, closed: bool) -> None:
        """Return where another watch may do better; raise otherwise, as where the client was closed."""
        if isinstance(error, DeadlineExceeded):
            raise self._too_late() from error
        # a server that stops at once cancels its calls
        if closed or not isinstance(error, Unavailable | Cancelled):
            raise error

    def _too_late(self) -> DeadlineExceeded:
        within = f"within {self._deadline_ms:.0f} ms"
        if self._said is None:
            return DeadlineExceeded(f"no server at {self._target} {within}")
        return DeadlineExceeded(f"{self._what} is {self._said} and was not SERVING {within}")
