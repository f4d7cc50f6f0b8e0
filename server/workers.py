"""`server.workers: n`: n processes on one port, each following the registry on its own.

1. The parent holds the port's reservation and serves nothing itself.
2. A worker that dies is started again, after a pause that grows while it keeps dying; no other waits for that.
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
        self._pauses: dict[int, float] = {}
        self._due: dict[int, float] = {}

    def run(self) -> None:
        """Supervise until SIGTERM or SIGINT, and then until every worker has drained."""
        for caught in (signal.SIGTERM, signal.SIGINT):
            signal.signal(caught, self._stop)
        for number in range(self._count):
            self._start(number)
        while self._workers or self._due:
            self._watch()
            self._restart()

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
        # a signal does not end the wait; with nobody to wait for, the time passes all the same
        patience = _STOP_CHECK_SECONDS if self._due else 1.0
        events = wait([*(process.sentinel for process in self._workers), *self._unheard()], timeout=patience)
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
        now = time.monotonic()
        pause = _FIRST_PAUSE if now - started > _LONG_LIFE else self._pauses.get(number, _FIRST_PAUSE)
        _log.error(
            "worker.died", number=number, pid=process.pid, exit_code=process.exitcode, restart_in=pause
        )
        self._due[number] = now + pause
        self._pauses[number] = min(pause * 2, _LONGEST_PAUSE)

    def _restart(self) -> None:
        for number, due in list(self._due.items()):
            if self._stopping:
                del self._due[number]
            elif time.monotonic() >= due:
                del self._due[number]
                self._start(number)
