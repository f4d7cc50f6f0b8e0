"""Where jobs run: processes of this machine, or the nodes of a Ray cluster.

Both backends keep these rules:
1. Each job has exactly one outcome, given as soon as it is there; a job that fails, or whose worker dies, stops
   no other.
2. A job whose worker died is run again, elsewhere: so `work` must be able to tell what it did before.
3. Once the inbox is told to stop, nothing new starts; running work is interrupted by an exception, so that it
   can clear up, and killed where it does not end in time.
4. When the iterator ends or is closed, no worker is left.
5. A worker computes on one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")

GRACE_SECONDS = 10.0
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"
)


@dataclass(frozen=True)
class Outcome(Generic[Result]):
    """How a job ended: with a `value`, else `interrupted`, else with an `error` that `work` did not expect."""

    value: Result | None = None
    error: str = ""
    interrupted: bool = False


class Backend(Protocol):
    """A place to run jobs."""

    def run(
        self, jobs: Sequence[Job], work: Callable[[Job], Result], inbox: Inbox
    ) -> Iterator[tuple[Job, Outcome[Result]]]:
        """Run `work` on every job and give each job's outcome as it ends; both must pickle.

        Raises:
            BackendError: nothing could be started.
        """
        ...


class BackendError(Exception):
    """No worker can be started; the text says what to do."""


class Inbox:
    """What the main thread waits on: ended jobs, and the wish to stop.

    `stop` may be called in a signal handler or in another thread: a SimpleQueue's put is reentrant.
    """

    def __init__(self) -> None:
        self._queue = SimpleQueue[Future[Any] | None]()
        self.stopped = False

    def stop(self) -> None:
        """Ask the main thread to end; also when it is asleep."""
        self.stopped = True
        self._queue.put(None)

    def post(self, future: Future[Any]) -> None:
        """Hand over an ended job."""
        self._queue.put(future)

    def next(self, timeout: float | None = None) -> Future[Any] | None:
        """The next ended job; None at a stop or when the time, in seconds, is over."""
        try:
            return self._queue.get(timeout=timeout)
        except Empty:
            return None

    def sleep(self, seconds: float) -> None:
        """Return after so many seconds, or at a stop."""
        until = time.monotonic() + seconds
        while not self.stopped and (left := until - time.monotonic()) > 0:
            self.next(left)
