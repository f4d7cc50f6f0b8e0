"""Ctrl-C at a time when stopping would leave half of something: it is kept until that is done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_KEPT = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold SIGINT and SIGTERM back until the block ends, and hand the first one on then.

    Signals reach the main thread alone; elsewhere this does nothing. Only what is handled in Python is held
    back: a process that ignores a signal goes on ignoring it, and a default SIGTERM ends it at once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        del frame
        came.append(number)

    handled = {number: handler for number in _KEPT if callable(handler := signal.getsignal(number))}
    for number in handled:
        signal.signal(number, remember)
    try:
        yield
    finally:
        for number, handler in handled.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])
