"""How values are spread, as a chart draws it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BINS = 41
_SAME = 1e-12  # what a sum's last digits differ by
_AROUND = 1e-6


def histogram(values: NDArray[np.float64]) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Edges, ascending, and how many values lie between each and the next: one edge more than counts.

    Values that are all the same stand in one narrow bin: numpy's are as wide for them as the whole equity.
    `values` is float64 [n], finite, n at least 1.
    """
    low, high = float(values.min()), float(values.max())
    if high - low < _SAME:
        low, high = low - _AROUND, high + _AROUND
    counts, edges = np.histogram(values, bins=BINS, range=(low, high))
    return tuple(edges.tolist()), tuple(counts.tolist())
