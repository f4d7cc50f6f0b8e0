"""Threads of their own for each kind of blocking work, so that none waits behind another kind.

1. Few jobs are worked on at a time; one that takes long makes room for another, so that what hangs (a disk, a load,
   the registry's lock) holds up neither what is quick nor what is asked for after it.
2. There is an end to that: `most` threads, the hanging ones included. What then waits is given up like what hangs.
3. Nothing waits for a thread at the exit: a job that hangs would never let it end.
"""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_all: weakref.WeakSet[Threads] = weakref.WeakSet()

# a job that takes longer than this makes room for another
_SLOW_SECONDS = 1.0


class StillRunningError(Exception):
    """A job has been worked on for longer than its asker waits."""


class Job(Generic[T]):
    """A piece of work; `future` is done once it is, and `began` is when a thread took it up (monotonic seconds)."""

    __slots__ = ("_loop", "_progress", "_queued", "_work", "began", "future", "slow")

    def __init__(self, work: Callable[[], T], progress: Callable[[], float]) -> None:
        """`progress` says when a thread last took up or ended a job."""
        self._loop = asyncio.get_running_loop()
        self._work = work
        self._progress = progress
        self._queued = time.monotonic()
        self.future: asyncio.Future[T] = self._loop.create_future()
        self.began: float | None = None
        self.slow = False

    def run(self) -> None:
        """Do it, in a thread, unless nobody wants it any more."""
        if self.future.cancelled():
            return
        try:
            result = self._work()
        except BaseException as error:  # noqa: BLE001 - it belongs to who asked
            self._tell(self._fail, _tame(error))
        else:
            self._tell(self._succeed, result)

    def _succeed(self, result: T) -> None:
        if not self.future.done():
            self.future.set_result(result)

    def _fail(self, error: BaseException) -> None:
        if not self.future.done():
            self.future.set_exception(error)

    def _tell(self, settle: Callable[[Any], None], outcome: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(settle, outcome)

    async def result(self, seconds: float) -> T:
        """What the work gives; it goes on whatever becomes of the waiting.

        Raises:
            StillRunningError: it has been worked on for `seconds`, or no thread has taken up anything for so long.
        """
        while not self.future.done():
            since = max(self._queued, self._progress()) if self.began is None else self.began
            left = since + seconds - time.monotonic()
            if left <= 0:
                raise StillRunningError
            await asyncio.wait({self.future}, timeout=left)
        return self.future.result()


def _tame(error: BaseException) -> Exception:
    """What may be raised into a waiting task: anything else would end the event loop, or never arrive."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    tamed = RuntimeError(f"{type(error).__name__}: {error}")
    tamed.__cause__ = error
    return tamed


class Threads:
    """Threads for one kind of work, made as they are needed; used from one event loop."""

    def __init__(self, name: str, at_once: int, most: int | None = None) -> None:
        """`at_once` jobs that are not slow are worked on together, in at most `most` threads (default: 8 for each)."""
        self._name = name
        self._at_once = at_once
        self._most = 8 * at_once if most is None else most
        self._turn = threading.Condition()
        self._waiting: deque[Job[Any]] = deque()
        self._working: set[Job[Any]] = set()
        self._threads = 0
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._moved = 0.0
        _all.add(self)

    def begin(self, work: Callable[..., T], *arguments: Any, **named: Any) -> Job[T]:
        """Have it run in one of them, as soon as one is free."""
        job = Job(partial(work, *arguments, **named), lambda: self._moved)
        with self._turn:
            if self._closed:
                job.future.cancel()
                return job
            self._waiting.append(job)
            self._turn.notify()
        self._make_room()
        return job

    async def run(self, work: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """As `begin`, and wait for what it gives; who no longer waits has it left undone, unless it was begun."""
        return await self.begin(work, *arguments, **named).future

    @property
    def working(self) -> bool:
        """Whether a job is being worked on."""
        return bool(self._working)

    @property
    def awaited(self) -> bool:
        """Whether a job waits for its turn; from any thread."""
        return bool(self._waiting)

    def close(self) -> None:
        """Begin nothing more; what is under way ends by itself, or never."""
        with self._turn:
            self._closed = True
            waiting, self._waiting = self._waiting, deque()
            self._turn.notify_all()
        for job in waiting:
            job.future.cancel()
        if self._timer is not None:
            self._timer.cancel()

    def _make_room(self) -> None:
        """Start threads for what waits, and look again once what is worked on has become slow."""
        now = time.monotonic()
        with self._turn:
            for job in self._working:
                job.slow = job.slow or now - (job.began or now) >= _SLOW_SECONDS
            quick = [job for job in self._working if not job.slow]
            idle = self._threads - len(self._working)
            wanted = min(
                len(self._waiting) - idle, self._at_once - len(quick) - idle, self._most - self._threads
            )
            for _ in range(wanted):
                self._threads += 1
                threading.Thread(target=self._work, name=self._name, daemon=True).start()
            blocked = bool(self._waiting) and self._threads < self._most and not self._closed
        if blocked and self._timer is None:
            # those that have a thread by now may be slow by then, and those that get one in this moment later
            due = min((job.began or now for job in quick), default=now) + _SLOW_SECONDS - now
            self._timer = asyncio.get_running_loop().call_later(max(0.01, due), self._look_again)

    def _look_again(self) -> None:
        self._timer = None
        self._make_room()

    def _work(self) -> None:
        while (job := self._next()) is not None:
            job.run()
            with self._turn:
                self._working.discard(job)
                self._moved = time.monotonic()
            del job  # what it holds, a model perhaps, is not kept until the next comes

    def _next(self) -> Job[Any] | None:
        """The next job; None where this thread is one too many, made while others were slow."""
        with self._turn:
            while True:
                slow = sum(job.slow for job in self._working)
                if self._closed or self._threads - slow > self._at_once:
                    self._threads -= 1
                    return None
                if self._waiting:
                    job = self._waiting.popleft()
                    job.began = self._moved = time.monotonic()
                    self._working.add(job)
                    return job
                self._turn.wait()


def any_hang() -> bool:
    """Whether a job of this process is still being worked on."""
    return any(threads.working for threads in list(_all))
