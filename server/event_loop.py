"""The event loop that a server process runs on."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any

# a call wakes the event loop several times, and would wait so long each time while a thread loads a model
_SWITCH_SECONDS = 0.0005


def run_loop(main: Coroutine[Any, Any, None]) -> None:
    """Run to the end: on uvloop, where the platform has it."""
    sys.setswitchinterval(_SWITCH_SECONDS)
    if sys.platform == "win32":
        asyncio.run(main)
        return
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)
