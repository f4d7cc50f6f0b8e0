"""Jobs in processes of this machine.

1. Each lane is a pool of one process, so a process that dies takes down its own job alone, and it is known which.
2. Processes are spawned, not forked: the libraries' threads don't survive a fork.
3. Ctrl-C reaches every process of a terminal; workers block it, the parent alone decides. SIGTERM interrupts a
   worker's job. A worker whose parent is gone interrupts its job and ends.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, resource_tracker
from multiprocessing.process import BaseProcess
from typing import Any, TypeAlias

from signalserve.training.backends import GRACE_SECONDS, ONE_THREAD, Inbox, Job, Outcome, Result

_ATTEMPTS = 2
_Running: TypeAlias = "dict[Future[Any], tuple[Job, int, _Lane]]"


class LocalBackend:
    """A pool of `processes` workers."""

    def __init__(self, processes: int) -> None:
        self._processes = processes

    def run(
        self, jobs: Sequence[Job], work: Callable[[Job], Result], inbox: Inbox
    ) -> Iterator[tuple[Job, Outcome[Result]]]:
        """As the protocol has it."""
        waiting = deque((job, 1) for job in jobs)
        running: _Running[Job] = {}
        idle: list[_Lane] = []
        try:
            while (waiting or running) and not inbox.stopped:
                while waiting and len(running) < self._processes:
                    job, attempt = waiting.popleft()
                    lane = idle.pop() if idle else _Lane.open()
                    future = lane.submit(work, job)
                    running[future] = (job, attempt, lane)
                    future.add_done_callback(inbox.post)
                ended = inbox.next()
                if ended is None or ended not in running:
                    continue
                job, attempt, lane = running.pop(ended)
                if (error := ended.exception()) is None:
                    idle.append(lane)
                    yield job, ended.result()
                    continue
                lane.close()
                if attempt < _ATTEMPTS and isinstance(error, BrokenProcessPool):
                    waiting.appendleft((job, attempt + 1))
                else:
                    yield (
                        job,
                        Outcome(error=f"its worker died {attempt} times; the machine's log may say why"),
                    )
        finally:
            # also when the caller stops asking in mid-run: interrupted work needs its time to clear up
            ends = _wind_down(running)
            for lane in idle:
                lane.close()
        yield from ends
        for job, _ in waiting:
            yield job, Outcome(interrupted=True)


def _wind_down(running: _Running[Job]) -> list[tuple[Job, Outcome[Any]]]:
    """Interrupt what runs, kill what has not ended in time, and say how each ended."""
    for _, _, lane in running.values():
        lane.interrupt()
    until = time.monotonic() + GRACE_SECONDS
    ends: list[tuple[Job, Outcome[Any]]] = []
    for future, (job, _, lane) in running.items():
        try:
            error = future.exception(timeout=max(0.0, until - time.monotonic()))
        except TimeoutError:
            lane.kill()
            error = future.exception()
        lane.close()
        ends.append((job, future.result() if error is None else Outcome(interrupted=True)))
    return ends


@dataclass(frozen=True)
class _Lane:
    """A pool of one process."""

    pool: ProcessPoolExecutor
    process: BaseProcess

    @classmethod
    def open(cls) -> _Lane:
        """Start a worker."""
        pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _start_worker)
        before = set(multiprocessing.active_children())
        with _spawning():
            pool.submit(os.getpid)
        (process,) = set(multiprocessing.active_children()) - before
        return cls(pool, process)

    def submit(self, work: Callable[[Job], Result], job: Job) -> Future[Outcome[Result]]:
        """Run a job; only when the one before has ended."""
        try:
            return self.pool.submit(_run, work, job)
        except BrokenProcessPool as error:  # it died while it was idle
            broken = Future[Outcome[Result]]()
            broken.set_exception(error)
            return broken

    def interrupt(self) -> None:
        """Raise in the running job."""
        self.process.terminate()

    def kill(self) -> None:
        """End the worker at once."""
        self.process.kill()

    def close(self) -> None:
        """Let the idle, or dead, worker go."""
        self.pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _spawning() -> Iterator[None]:
    """What a process that is born in the block inherits: one thread for computing, and Ctrl-C blocked."""
    resource_tracker.ensure_running()  # starting it unblocks the signal
    kept = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for name, value in kept.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class _Interrupted(BaseException):
    """Raised in a job by SIGTERM; no Exception, so that nothing takes it for a failure of the job."""


class _Worker:
    """What a worker process knows of itself."""

    busy = False
    stopping = False
    orphaned = False


def _start_worker() -> None:
    signal.signal(signal.SIGTERM, _on_term)
    threading.Thread(target=_watch_parent, daemon=True).start()


def _on_term(number: int, frame: Any) -> None:
    del number, frame
    _Worker.stopping = True
    if _Worker.busy:
        _Worker.busy = False  # a second signal must not break into the clearing up
        raise _Interrupted
    if _Worker.orphaned:
        os._exit(1)


def _watch_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    connection.wait([parent.sentinel])
    _Worker.orphaned = True
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os._exit(1)


def _run(work: Callable[[Job], Result], job: Job) -> Outcome[Result]:
    try:
        _Worker.busy = True
        if _Worker.stopping:  # the signal came before the job
            return Outcome(interrupted=True)
        value = work(job)
        _Worker.busy = False
    except _Interrupted:
        if _Worker.orphaned:
            os._exit(1)
        return Outcome(interrupted=True)
    except Exception as error:  # noqa: BLE001 - as text: an exception that does not unpickle breaks the pool
        _Worker.busy = False
        return Outcome(error=f"{type(error).__name__}: {' '.join(str(error).split())}")
    return Outcome(value)
