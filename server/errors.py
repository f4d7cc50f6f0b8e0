"""What the serving path refuses, in one tree that knows no protocol.

ServingError
├── UnknownServingKeyError     no entry of the symbol and timeframe
├── RequestError               the request is wrong; `field` says where
├── NothingToServeError        no production model, or one that can't be served
├── BrokenAnswerError          the model's score is none; neither the question nor the server is at fault
├── OverloadedError            more calls or streams than the server takes; come again in `retry_seconds`
├── LateError                  the deadline had gone, and no work was done
├── BehindError                the registry revision that was asked for is not served here; come again
├── StartingError              no model of the key was loaded yet; come again in `retry_seconds`
│   └── LoadTimeoutError       a model's load takes longer than it may; it goes on
└── DrainingError              the server is about to stop

The registry's and the predictors' errors have their own trees.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any


class ServingError(Exception):
    """Root of the tree. `reason` is for programs, the text says what to do, `metadata` holds the facts."""

    retry_seconds: float | None = None

    def __init__(
        self, reason: str, message: str, *, field: str = "", metadata: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.field = field
        self.metadata = dict(metadata or {})


class UnknownServingKeyError(ServingError):
    """The registry has no such key."""


class RequestError(ServingError):
    """The request is wrong and will be wrong again."""


class NothingToServeError(ServingError):
    """The request is right, but there is no model that may answer it."""


class BrokenAnswerError(ServingError):
    """What the model gave is no answer; the text is for the log, and the asker is told no more than the reason."""


class OverloadedError(ServingError):
    """More work in flight than `server.max_in_flight`, or more streams open than `server.max_streams`."""

    retry_seconds = 0.05


class LateError(ServingError):
    """The deadline was gone before the work began."""


class BehindError(ServingError):
    """The server does not serve the registry revision that was asked for."""

    retry_seconds = 0.25


class StartingError(ServingError):
    """The registry was not read yet, so nobody can say what it holds, or the key's first model is being loaded."""

    retry_seconds = 0.25


class LoadTimeoutError(StartingError):
    """A load takes longer than `server.load_seconds`; `ended` is done once it has ended."""

    retry_seconds = 1.0

    def __init__(self, reason: str, message: str, *, ended: asyncio.Future[Any] | None = None) -> None:
        super().__init__(reason, message)
        self.ended = ended


class DrainingError(ServingError):
    """The server is about to stop."""
