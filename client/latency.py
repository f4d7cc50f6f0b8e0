"""How long answers took, as the client saw it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LatencySummary:
    """Of answered predictions: `count` of them all, percentiles in milliseconds of the newest; None with none."""

    count: int
    p50_ms: float | None
    p99_ms: float | None


class LatencyWindow:
    """Percentiles of the last `size` latencies, in milliseconds; `add` may be called from many threads."""

    def __init__(self, size: int = 1024) -> None:
        self._values: deque[float] = deque(maxlen=size)
        self._count = 0

    def add(self, milliseconds: float) -> None:
        """Add one; the oldest goes where there are `size` already."""
        self._values.append(milliseconds)
        self._count += 1

    def percentile(self, percent: float) -> float | None:
        """Give the value that `percent` of the latencies do not exceed (nearest rank); None with none."""
        return _rank(sorted(self._values.copy()), percent)

    def summary(self) -> LatencySummary:
        """Give the count of all that were added, and the percentiles of the last."""
        ordered = sorted(self._values.copy())
        return LatencySummary(self._count, _rank(ordered, 50), _rank(ordered, 99))


def _rank(ordered: list[float], percent: float) -> float | None:
    if not ordered:
        return None
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(0, int(rank) - 1)]
