"""What can be wrong with bars and with a request for features.

FeatureError
├── BarsError              the bars can't be trusted: what, where, and what to do
│   └── NoBarFileError     there is no such file
└── UnknownPresetError     no preset of that name
"""

from __future__ import annotations

from pathlib import Path


class FeatureError(Exception):
    """Base of everything that this package raises on purpose."""


class UnknownPresetError(FeatureError):
    """No preset of that name."""


class BarsError(FeatureError):
    """Bars that can't be trusted.

    Attributes:
        problem: what is wrong and what to do about it.
        path: the file; None for bars that came from memory.
        line: 1-based line of a CSV file, or row of a table; None where no single one is at fault.
        timestamp: the bar's timestamp as it is written; None where unknown.
    """

    def __init__(
        self,
        problem: str,
        *,
        path: Path | None = None,
        line: int | None = None,
        timestamp: str | None = None,
        unit: str = "line",
    ) -> None:
        self.problem = problem
        self.path = path
        self.line = line
        self.timestamp = timestamp
        where = [] if path is None else [str(path)]
        if line is not None:
            where.append(f"{unit} {line}" + (f" ({timestamp})" if timestamp else ""))
        super().__init__(": ".join([", ".join(where), problem]) if where else problem)


class NoBarFileError(BarsError):
    """There is no file of that name."""
