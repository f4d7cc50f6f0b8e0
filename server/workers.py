"""`server.workers: n`: n processes on one port, each following the registry on its own.

1. The parent holds the port's reservation and serves nothing itself.
2. A worker that dies is started again, after a pause that grows while it keeps dying.
3. Worker i answers for its metrics on server.metrics_port + i.
4. SIGTERM and SIGINT go to every worker; the parent exits 0 when all of them have drained.
5. A worker whose parent was killed drains too: nothing would start it again or pass signals on to it.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import structlog

from signalserve.config.logs import configure_logs
from signalserve.config.settings import Settings
from signalserve.server.bootstrap import reserve_port, serve

_FIRST_PAUSE, _LONGEST_PAUSE, _LONG_LIFE = 0.5, 30.0, 60.0
_STOP_CHECK_SECONDS = 0.1
# a call wakes the event loop several times, and would wait so long each time while a thread loads a model
_SWITCH_SECONDS = 0.0005

_log = structlog.get_logger("server")


def run_server(settings: Settings, on_ready: Callable[[int], None] | None = None) -> int:
    """Serve in this process, or in `server.workers` of them, until SIGTERM; gives the exit code.

    `on_ready` gets the port once every production model is loaded (in every worker).
    """
    if settings.server.workers == 1:
        _run_loop(serve(settings, on_ready=on_ready))
        return 0
    return _Supervisor(settings, on_ready).run()


def _run_loop(main: object) -> None:
    sys.setswitchinterval(_SWITCH_SECONDS)
    if sys.platform == "win32":
        asyncio.run(main)  # type: ignore[arg-type]
        return
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)  # type: ignore[arg-type]  # a coroutine; uvloop is untyped


def _worker(settings: Settings, number: int, ready: Connection) -> None:
    if settings.server.metrics_port:  # 0 takes a free port in each
        port = settings.server.metrics_port + number
        changed = settings.server.model_copy(update={"metrics_port": port})
        settings = settings.model_copy(update={"server": changed})
    configure_logs(settings.logging)

    threading.Thread(target=_drain_with_parent, name="parent-watch", daemon=True).start()

    def tell(port: int) -> None:
        ready.send(port)

    _run_loop(serve(settings, reuse_port=True, on_ready=tell))


def _drain_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        _log.error("worker.parent_died")
        os.kill(os.getpid(), signal.SIGTERM)


class _Supervisor:
    def __init__(self, settings: Settings, on_ready: Callable[[int], None] | None) -> None:
        self._settings = settings
        self._on_ready = on_ready
        self._context = multiprocessing.get_context("spawn")
        self._workers: dict[BaseProcess, tuple[int, Connection, float]] = {}
        self._ready: set[int] = set()
        self._stopping = False
        self._pause = _FIRST_PAUSE

    def run(self) -> int:
        holder = reserve_port(self._settings.server.host, self._settings.server.port)
        port = holder.getsockname()[1]
        server = self._settings.server.model_copy(update={"port": port})
        settings = self._settings.model_copy(update={"server": server})
        for caught in (signal.SIGTERM, signal.SIGINT):
            signal.signal(caught, self._stop)
        try:
            for number in range(server.workers):
                self._start(settings, number)
            while self._workers:
                self._watch(settings, port)
        finally:
            holder.close()
        return 0

    def _start(self, settings: Settings, number: int) -> None:
        receiver, sender = self._context.Pipe(duplex=False)
        process = self._context.Process(
            target=_worker, args=(settings, number, sender), name="signalserve-worker"
        )
        process.start()
        sender.close()
        self._workers[process] = (number, receiver, time.monotonic())
        if self._stopping:  # the signal came while the worker was being started
            process.terminate()

    def _stop(self, *_: object) -> None:
        self._stopping = True
        for process in self._workers:
            if process.is_alive() and process.pid is not None:
                process.terminate()

    def _watch(self, settings: Settings, port: int) -> None:
        events = wait([*(process.sentinel for process in self._workers), *self._unheard()], timeout=1.0)
        for process, (number, receiver, started) in list(self._workers.items()):
            if receiver in events:
                self._hear(process, receiver, port)
            if process.sentinel in events:
                self._bury(process, number, started, settings)

    def _unheard(self) -> list[Connection]:
        return [
            receiver for process, (_, receiver, _) in self._workers.items() if process.pid not in self._ready
        ]

    def _hear(self, process: BaseProcess, receiver: Connection, port: int) -> None:
        try:
            receiver.recv()
        except EOFError:
            return
        first = len(self._ready) < self._settings.server.workers
        self._ready.add(process.pid or 0)
        if first and len(self._ready) == self._settings.server.workers and self._on_ready is not None:
            self._on_ready(port)
            self._on_ready = None

    def _bury(self, process: BaseProcess, number: int, started: float, settings: Settings) -> None:
        process.join()
        self._workers.pop(process)[1].close()
        was_ready = process.pid in self._ready
        self._ready.discard(process.pid or 0)
        if self._stopping:
            if not was_ready:
                _log.info("worker.ended_while_starting", pid=process.pid)
            elif process.exitcode != 0:
                _log.error("worker.did_not_drain", pid=process.pid, exit_code=process.exitcode)
            return
        if time.monotonic() - started > _LONG_LIFE:
            self._pause = _FIRST_PAUSE
        _log.error("worker.died", pid=process.pid, exit_code=process.exitcode, restart_in=self._pause)
        until = time.monotonic() + self._pause
        while not self._stopping and time.monotonic() < until:  # a signal does not end a sleep
            time.sleep(_STOP_CHECK_SECONDS)
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        if not self._stopping:
            self._start(settings, number)
