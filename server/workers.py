"""`server.workers: n`: n processes on one port, each following the registry on its own.

1. The parent holds the port's reservation and serves nothing itself.
2. A worker that dies is started again, after a pause that grows while it keeps dying; no other waits for that. One that
   served and then drained, as somebody asked it alone to end, is started again without that.
3. Worker i answers for its metrics on server.metrics_port + i.
4. SIGTERM and SIGINT go to every worker; the parent exits 0 when all of them have drained.
5. A worker whose parent was killed drains too: nothing would start it again or pass signals on to it.
6. What each worker reports of itself is passed on to the others; the dead are on no board.
7. A worker whose event loop stands still (frozen, or in code that keeps the interpreter's lock) answers nothing and
   keeps its clients. It is not heard either: the others are told, and after server.silence_seconds it is killed.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import structlog

from signalserve.server.peers import BEAT_SECONDS, Mailbox, Report

_FIRST_PAUSE, _LONGEST_PAUSE, _LONG_LIFE = 0.5, 30.0, 60.0
_STOP_CHECK_SECONDS = 0.1
_WATCH_SECONDS = 1.0
# a worker that was not heard for so long is said to be silent
_SILENT_SECONDS = 3 * BEAT_SECONDS

READY = "ready"

# runs worker i until SIGTERM; says READY and reports over the connection; goes to the worker pickled
RunWorker = Callable[[int, Connection], None]

_log = structlog.get_logger("server")


@dataclass
class _Worker:
    """A worker's number, the parent's end of its pipe, when it was started and last heard (monotonic seconds).

    `heard` is None until it reports, and once it is being killed.
    """

    number: int
    connection: Connection
    mailbox: Mailbox
    started: float = field(default_factory=time.monotonic)
    heard: float | None = None


def _worker(run: RunWorker, number: int, connection: Connection) -> None:
    threading.Thread(target=_drain_with_parent, name="parent-watch", daemon=True).start()
    run(number, connection)


def _drain_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        _log.error("worker.parent_died")
        os.kill(os.getpid(), signal.SIGTERM)


class Supervisor:
    """Starts the workers and keeps them running."""

    def __init__(
        self, run_worker: RunWorker, workers: int, on_ready: Callable[[], None], silence_seconds: float
    ) -> None:
        """`on_ready` is called once, when every worker is ready for the first time.

        A worker that has reported once and is not heard for `silence_seconds` is killed.
        """
        self._run_worker = run_worker
        self._count = workers
        self._on_ready: Callable[[], None] | None = on_ready
        self._silence = silence_seconds
        self._context = multiprocessing.get_context("spawn")
        self._workers: dict[BaseProcess, _Worker] = {}
        self._board: dict[int, Report] = {}
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
        mine, its = self._context.Pipe()
        process = self._context.Process(
            target=_worker, args=(self._run_worker, number, its), name="signalserve-worker"
        )
        process.start()
        its.close()
        self._workers[process] = _Worker(number, mine, Mailbox(mine))
        if self._stopping:  # the signal came while the worker was being started
            process.terminate()

    def _stop(self, *_: object) -> None:
        self._stopping = True
        for process in self._workers:
            if process.is_alive() and process.pid is not None:
                process.terminate()

    def _watch(self) -> None:
        # a signal does not end the wait; with nobody to wait for, the time passes all the same
        unsent = [worker for worker in self._workers.values() if not worker.mailbox.send()]
        patience = _STOP_CHECK_SECONDS if self._due or unsent else _WATCH_SECONDS
        began = time.monotonic()
        connections = [worker.connection for worker in self._workers.values() if not worker.connection.closed]
        events = wait([*(process.sentinel for process in self._workers), *connections], timeout=patience)
        for process, worker in list(self._workers.items()):
            if worker.connection in events:
                self._hear(process, worker)
            if process.sentinel in events:
                self._bury(process, worker)
        # frozen itself, perhaps with the machine: that nobody was heard meanwhile says nothing
        was_away = time.monotonic() - began > patience + _SILENT_SECONDS
        for process, worker in self._workers.items():
            if was_away and worker.heard is not None:
                worker.heard = time.monotonic()
            self._listen_for(process, worker)

    def _listen_for(self, process: BaseProcess, worker: _Worker) -> None:
        """Tell the others of a worker that is not heard, and kill it in the end."""
        if worker.heard is None:
            return
        silent = time.monotonic() - worker.heard
        report = self._board.get(worker.number)
        if report is not None and not report.silent and silent > _SILENT_SECONDS:
            _log.warning(
                "worker.silent", number=worker.number, pid=process.pid, killed_after_seconds=self._silence
            )
            self._board[worker.number] = report._replace(silent=True)
            self._post()
        if silent > self._silence:
            _log.error(
                "worker.killed", number=worker.number, pid=process.pid, silent_seconds=round(silent, 1)
            )
            worker.heard = None
            process.kill()

    def _hear(self, process: BaseProcess, worker: _Worker) -> None:
        # all that it has said: it may be about to be buried
        while not worker.connection.closed and worker.connection.poll():
            try:
                message = worker.connection.recv()
            except (EOFError, OSError):
                worker.connection.close()  # it is about to end
                return
            worker.heard = time.monotonic()
            if message != READY:
                if message != self._board.get(worker.number):
                    self._board[worker.number] = message
                    self._post()
                continue
            self._ready.add(process.pid or 0)
            if len(self._ready) == self._count and self._on_ready is not None:
                self._on_ready()
                self._on_ready = None

    def _post(self) -> None:
        for worker in self._workers.values():
            worker.mailbox.say(tuple(self._board.values()))

    def _bury(self, process: BaseProcess, worker: _Worker) -> None:
        process.join()
        del self._workers[process]
        worker.connection.close()
        if self._board.pop(worker.number, None) is not None:
            self._post()
        number, started = worker.number, worker.started
        was_ready = process.pid in self._ready
        self._ready.discard(process.pid or 0)
        if self._stopping:
            if not was_ready:
                _log.info("worker.ended_while_starting", pid=process.pid)
            elif process.exitcode != 0:
                _log.error("worker.did_not_drain", pid=process.pid, exit_code=process.exitcode)
            return
        now = time.monotonic()
        well = now - started > _LONG_LIFE or (was_ready and process.exitcode == 0)
        pause = _FIRST_PAUSE if well else self._pauses.get(number, _FIRST_PAUSE)
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
