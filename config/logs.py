"""Log lines: structlog on stderr, readable text or JSON, one line an event."""

from __future__ import annotations

import logging
import sys

import structlog

from signalserve.config.settings import LoggingSettings


def configure_logs(settings: LoggingSettings, *, worker: int | None = None) -> None:
    """Set the level and the form of every log line of this process. Call it once, at the start.

    `worker` is said in each line: which of several processes wrote it.
    """

    def name_worker(
        _logger: object, _method: str, line: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        if worker is not None:
            line.setdefault("worker", worker)
        return line

    renderer: structlog.typing.Processor
    if settings.format == "json":
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    structlog.configure(
        processors=[
            # no context variable: threads of a pool don't inherit those
            name_worker,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, settings.level.upper())),
        # text and line end in one write, so that lines of several workers stay whole
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
