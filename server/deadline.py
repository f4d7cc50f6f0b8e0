"""Until when a call may wait: monotonic seconds, None for no deadline."""

from __future__ import annotations

import time

# nobody waits for longer, whatever the deadline
_LONGEST_WAIT = 60.0


def until(remaining: float | None, spare: float = 0.0) -> float | None:
    """The moment in `remaining` seconds, of which `spare` are left for what comes after."""
    return None if remaining is None else time.monotonic() + max(0.0, remaining - spare)


def wait_seconds(moment: float | None) -> float:
    """How long to wait up to a moment: 0 where it has passed, and never long."""
    left = _LONGEST_WAIT if moment is None else moment - time.monotonic()
    return min(_LONGEST_WAIT, max(0.0, left))
