"""The event loop that a server process runs on, and what keeps its pauses short.

1. A thread that computes gives the interpreter's lock up after half a millisecond.
2. The kernel lets the loop's thread go first for short turns: beside threads that compute on every core it waits for
   3 ms else. Linux from 6.12 on does so for who asks for short turns; anywhere else nothing is asked for.
3. The garbage collector leaves alone what was there once the server is ready: a look at all of it takes 40 ms.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import platform
import struct
import sys
from collections.abc import Coroutine
from typing import Any

# a call wakes the event loop several times, and would wait so long each time while a thread loads a model
_SWITCH_SECONDS = 0.0005

_TURN_NANOSECONDS = 100_000
# the call has no function of its own in some C libraries
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
_RESET_ON_FORK = 1


def run_loop(main: Coroutine[Any, Any, None]) -> None:
    """Run to the end: on uvloop, where the platform has it."""
    sys.setswitchinterval(_SWITCH_SECONDS)
    _ask_for_short_turns()
    if sys.platform == "win32":
        asyncio.run(main)
        return
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


def settle() -> None:
    """Have the garbage collector leave alone what there is now; it takes some 100 ms."""
    gc.collect()
    gc.freeze()


def _ask_for_short_turns() -> None:
    """For this thread and none that it starts; a kernel that refuses is asked no more."""
    number = _SCHED_SETATTR.get(platform.machine())
    if sys.platform != "linux" or number is None or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    # struct sched_attr of sched_setattr(2): size, policy, flags, nice, priority, runtime, deadline, period
    wanted = struct.pack("=IIQiIQQQ", 48, os.SCHED_OTHER, _RESET_ON_FORK, nice, 0, _TURN_NANOSECONDS, 0, 0)
    ctypes.CDLL(None).syscall(number, 0, wanted, 0)
