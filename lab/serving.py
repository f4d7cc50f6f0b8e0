"""An application as a process, or as several on one port: uvicorn, whose streams are told before it waits for them."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import structlog
import uvicorn
from starlette.types import ASGIApp
from uvicorn.supervisors import Multiprocess

from signalserve.access.certificates import TlsPaths, read_tls
from signalserve.access.errors import AccessSetupError
from signalserve.access.followed import Followed
from signalserve.lab.changes import Stopping

_log = structlog.get_logger("lab")

_SECONDS_TO_END = 5
_LOOK_SECONDS = 1.0


def configured(make_app: Callable[[], ASGIApp], workers: int, tls: TlsPaths | None = None) -> uvicorn.Config:
    """How the application is served; `make_app` is called in each worker's process, so it can be pickled."""
    return uvicorn.Config(
        make_app,
        factory=True,
        workers=workers,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # anybody on this machine could say that they are somebody else
        timeout_graceful_shutdown=_SECONDS_TO_END,
        ssl_context_factory=None if tls is None else FollowedContext(tls),
    )


class FollowedContext:
    """What uvicorn asks for its TLS: each handshake is shown the present certificate, read again as it changes."""

    def __init__(self, paths: TlsPaths) -> None:
        self._paths = paths

    def __call__(self, config: uvicorn.Config, default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        """The context of a worker.

        Raises:
            AccessSetupError: the files can't be used.
        """
        del config, default
        followed = Followed(self._paths.files, lambda: _context(self._paths))
        followed.follow(_LOOK_SECONDS, threading.Event())  # as long as the process lives
        first = followed.value

        def show(connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
            connection.context = followed.value

        first.sni_callback = show
        return first


def _context(paths: TlsPaths) -> ssl.SSLContext:
    read_tls(paths)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(paths.certificate, paths.key)
    except (OSError, ssl.SSLError) as error:
        raise AccessSetupError(f"{paths.certificate} can't be used: {error}") from error
    return context


def serve(
    make_app: Callable[[], ASGIApp], bound: socket.socket, workers: int, tls: TlsPaths | None = None
) -> None:
    """Serve on a bound socket, in this process or in several, until SIGTERM or SIGINT; then return."""
    config = configured(make_app, workers, tls)
    if workers > 1:
        Multiprocess(config, [bound]).run()
        return
    # uvicorn sends itself the signal again once all is over, to whoever handled it before
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        uvicorn.Server(config).run([bound])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
        threading.Thread(target=_end, name="end", daemon=True).start()
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


def _end() -> None:
    """End a process that does not end by itself: a thread that waits for a disk would be waited for without end."""
    time.sleep(_SECONDS_TO_END * 2)
    _log.error("lab.ended_hard", why="a thread still waits for a file")
    os._exit(1)


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
