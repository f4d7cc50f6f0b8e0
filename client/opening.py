"""How a stream gets its calls from the client that it belongs to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Opening:
    """`call` gives what starts a call over the present channel, signed by the present token, and holds both.

    `closed`: whether the client is, so that there will be none any more; `where`: the target, for messages;
    `most_bytes`: of a request's message.
    """

    call: Callable[[], Callable[..., Any]]
    closed: Callable[[], bool]
    where: str
    most_bytes: int
