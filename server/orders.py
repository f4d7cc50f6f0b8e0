"""Orders of columns that requests came with: what was worked out for a list of names once is not worked out again.

1. All of them together stay within a number of bytes; the one that nobody used for longest goes first.
2. A list with many more names than the model has is worked out each time: nobody can fill the memory with those.
"""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from typing import NamedTuple

import numpy as np

_SPARE_NAMES = 64
_OVERHEAD = 500  # of an entry: key, dictionary, array head

Names = tuple[str, ...]


class _Kept(NamedTuple):
    order: np.ndarray
    size: int


class OrderCache:
    """(schema hash of a model, names as sent) -> the columns to take, int64; safe to use from several threads."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._kept: OrderedDict[tuple[str, Names], _Kept] = OrderedDict()
        self._lock = threading.Lock()
        self.bytes_held = 0

    def get(self, schema_hash: str, names: Names) -> np.ndarray | None:
        """The order, where it is kept."""
        key = (schema_hash, names)
        with self._lock:
            kept = self._kept.get(key)
            if kept is None:
                return None
            self._kept.move_to_end(key)
            return kept.order

    def put(self, schema_hash: str, names: Names, order: np.ndarray) -> None:
        """Keep an order, where its names are not many more than it takes."""
        if len(names) > 2 * len(order) + _SPARE_NAMES:
            return
        key = (schema_hash, names)
        size = sys.getsizeof(names) + sum(map(sys.getsizeof, names)) + order.nbytes + _OVERHEAD
        with self._lock:
            if key in self._kept:
                return
            self._kept[key] = _Kept(order, size)
            self.bytes_held += size
            while self.bytes_held > self._most_bytes:
                self.bytes_held -= self._kept.popitem(last=False)[1].size
