"""Failed attempts to be somebody: counted, logged and slowed, by address.

1. Only a refusal is slowed: who shows a good credential never waits for what others do.
2. The pause doubles with each failure of an address and is forgotten after a quiet minute.
3. The log has a line a second and address at most, with the count.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import structlog

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
_FORGOTTEN_SECONDS = 60.0
_ADDRESSES = 4096
_LOG_SECONDS = 1.0

_log = structlog.get_logger("access")


@dataclass(slots=True)
class _Record:
    failures: int = 0
    last: float = 0.0
    logged: float = float("-inf")


class FailedAttempts:
    """What is remembered of each address, the newest 4,096. `total` is all failures since the start."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._records: OrderedDict[str, _Record] = OrderedDict()
        self._denied: dict[str, float] = {}
        self.total = 0

    def denied(self, who: str) -> bool:
        """Whether a refusal of somebody known, for want of a role, is to be logged now."""
        now = self._clock()
        if now - self._denied.get(who, float("-inf")) < _LOG_SECONDS:
            return False
        if len(self._denied) >= _ADDRESSES:
            self._denied.clear()
        self._denied[who] = now
        return True

    def failed(self, address: str, operation: str, reason: str) -> float:
        """Remember a failure; gives the seconds that its refusal waits."""
        now = self._clock()
        record = self._records.pop(address, None)
        if record is None or now - record.last > _FORGOTTEN_SECONDS:
            record = _Record()
        self._records[address] = record
        if len(self._records) > _ADDRESSES:
            self._records.popitem(last=False)
        record.failures += 1
        record.last = now
        self.total += 1
        if now - record.logged >= _LOG_SECONDS:
            record.logged = now
            _log.warning(
                "access.unauthenticated",
                address=address,
                operation=operation,
                reason=reason,
                failures=record.failures,
            )
        return float(min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(record.failures - 1, 10)))
