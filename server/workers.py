"""`server.workers: n`: n processes on one port, each following the registry on its own.

1. The parent holds the port's reservation and serves nothing itself.
2. A worker that dies is started again, after a pause that grows while it keeps dying.
3. Worker i answers for its metrics on server.metrics_port + i.
4. SIGTERM and SIGINT go to every worker; the parent exits 0 when all of them have drained.
5. A worker whose parent was killed drains too: nothing would start it again or pass signals on to it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import structlog

_FIRST_PAUSE, _LONGEST_PAUSE, _LONG_LIFE = 0.5, 30.0, 60.0
_STOP_CHECK_SECONDS = 0.1

# runs worker i until SIGTERM and calls the function that it is given once it is ready; goes to the worker pickled
RunWorker = Callable[[int, Callable[[], None]], None]

_log = structlog.get_logger("server")


def _worker(run: RunWorker, number: int, ready: Connection) -> None:
    threading.Thread(target=_drain_with_parent, name="parent-watch", daemon=True).start()
    run(number, lambda: ready.send(True))


def _drain_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        _log.error("worker.parent_died")
        os.kill(os.getpid(), signal.SIGTERM)


class Supervisor:
    """Starts the workers and keeps them running."""

    def __init__(self, run_worker: RunWorker, workers: int, on_ready: Callable[[], None]) -> None:
        """`on_ready` is called once, when every worker is ready for the first time."""
        self._run_worker = run_worker
        self._count = workers
        self._on_ready: Callable[[], None] | None = on_ready
        self._context = multiprocessing.get_context("spawn")
        self._workers: dict[BaseProcess, tuple[int, Connection, float]] = {}
        self._ready: set[int] = set()
        self._stopping = False
        self._pause = _FIRST_PAUSE

    def run(self) -> None:
        """Supervise until SIGTERM or SIGINT, and then until every worker has drained."""
        for caught in (signal.SIGTERM, signal.SIGINT):
            signal.signal(caught, self._stop)
        for number in range(self._count):
            self._start(number)
        while self._workers:
            self._watch()

    def _start(self, number: int) -> None:
        receiver, sender = self._context.Pipe(duplex=False)
        process = self._context.Process(
            target=_worker, args=(self._run_worker, number, sender), name="signalserve-worker"
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

    def _watch(self) -> None:
        events = wait([*(process.sentinel for process in self._workers), *self._unheard()], timeout=1.0)
        for process, (number, receiver, started) in list(self._workers.items()):
            if receiver in events:
                self._hear(process, receiver)
            if process.sentinel in events:
                self._bury(process, number, started)

    def _unheard(self) -> list[Connection]:
        return [
            receiver for process, (_, receiver, _) in self._workers.items() if process.pid not in self._ready
        ]

    def _hear(self, process: BaseProcess, receiver: Connection) -> None:
        try:
            receiver.recv()
        except EOFError:
            return
        self._ready.add(process.pid or 0)
        if len(self._ready) == self._count and self._on_ready is not None:
            self._on_ready()
            self._on_ready = None

    def _bury(self, process: BaseProcess, number: int, started: float) -> None:
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
            self._start(number)
