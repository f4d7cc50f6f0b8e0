"""Log lines of what is imported as a library: it configures nothing, and writes nothing to stdout.

1. Where the process has configured structlog, as our commands and servers do, a line goes there.
2. Else it goes to the standard library's logger `signalserve.<name>`, and so to the caller's own handlers. Without any,
   Python itself shows warnings on stderr.
"""

from __future__ import annotations

import logging
from typing import Any

import structlog


class LibraryLog:
    """Logs an event with its values; `name` is the part's, as `registry`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._plain = logging.getLogger(f"signalserve.{name}")

    def info(self, event: str, **values: Any) -> None:
        """What went as it should."""
        self._write(logging.INFO, event, values)

    def warning(self, event: str, **values: Any) -> None:
        """What somebody should look at."""
        self._write(logging.WARNING, event, values)

    def exception(self, event: str, **values: Any) -> None:
        """What went wrong, with the exception that is being handled."""
        self._write(logging.ERROR, event, values, trace=True)

    def _write(self, level: int, event: str, values: dict[str, Any], *, trace: bool = False) -> None:
        if structlog.is_configured():
            more = {"exc_info": True} if trace else {}
            structlog.get_logger(self._name).log(level, event, **values, **more)
        elif self._plain.isEnabledFor(level):
            text = " ".join([event, *(f"{name}={value!r}" for name, value in values.items())])
            self._plain.log(level, "%s", text, stacklevel=3, exc_info=trace)
