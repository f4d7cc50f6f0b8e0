"""An application as a process, or as several on one port: uvicorn, whose streams are told before it waits for them."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from starlette.types import ASGIApp
from uvicorn.supervisors import Multiprocess

from signalserve.lab.changes import Stopping

_SECONDS_TO_END = 5


def configured(make_app: Callable[[], ASGIApp], workers: int) -> uvicorn.Config:
    """How the application is served; `make_app` is called in each worker's process, so it can be pickled."""
    return uvicorn.Config(
        make_app,
        factory=True,
        workers=workers,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_SECONDS_TO_END,
    )


def serve(make_app: Callable[[], ASGIApp], bound: socket.socket, workers: int) -> None:
    """Serve on a bound socket, in this process or in several, until SIGTERM or SIGINT."""
    config = configured(make_app, workers)
    if workers == 1:
        uvicorn.Server(config).run([bound])
    else:
        Multiprocess(config, [bound]).run()


@contextmanager
def told_by_signals(stopping: Stopping) -> Iterator[None]:
    """Tell the streams as soon as the process is asked to stop; uvicorn waits for every answer to end.

    Does nothing but in the main thread, where alone signals can be handled.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def tell(number: int, frame: FrameType | None) -> None:
        stopping.set()
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    for number in before:
        signal.signal(number, tell)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def bound_socket(host: str, port: int) -> socket.socket:
    """A socket that listens at an address, whose port is a free one where 0 is asked for.

    Raises:
        OSError: it can't be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.listen(2048)
        bound.set_inheritable(True)
    except OSError:
        bound.close()
        raise
    return bound
