"""Jobs on a Ray cluster (extra `cluster`), or on a Ray of its own on this machine.

1. Every node sees the same registry and bar files under the same paths, and has this code installed.
2. Ray runs a task again, on another node, where its worker or its node died.
3. A Ray that is up already in this process is used, and left up.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from signalserve.common.log import LibraryLog
from signalserve.training.backends import GRACE_SECONDS, BackendError, Inbox, Job, Outcome, Result

if TYPE_CHECKING:
    import psutil

_RETRIES = 3
# now and then a raylet is gone before it has said a word, and Ray gives up after 30 s
_STARTS = 3
_OBJECT_STORE_BYTES = 128 * 1024 * 1024  # results are small

_log = LibraryLog("retrain")


class RayBackend:
    """A cluster at `address`; None: one of its own with `processes` workers."""

    def __init__(self, processes: int, address: str | None) -> None:
        self._processes = processes
        self._address = address
        # both are noise to a command's user; the second sends figures to Ray's makers
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError as error:
            raise BackendError(
                "retrain.backend is ray, and Ray is not installed: pip install 'signalserve[cluster]', or set"
                " retrain.backend: local"
            ) from error
        self._ray: Any = ray

    def run(
        self, jobs: Sequence[Job], work: Callable[[Job], Result], inbox: Inbox
    ) -> Iterator[tuple[Job, Outcome[Result]]]:
        """As the protocol has it."""
        with self._cluster():
            task = self._ray.remote(num_cpus=1, max_retries=_RETRIES)(_run)
            running: dict[Future[Any], tuple[Job, Any]] = {}
            try:
                for job in jobs:
                    reference = task.remote(work, job)
                    future: Future[Any] = reference.future()
                    running[future] = (job, reference)
                    future.add_done_callback(inbox.post)
                while running and not inbox.stopped:
                    ended = inbox.next()
                    if ended is not None and ended in running:
                        job, _ = running.pop(ended)
                        yield job, self._outcome(ended)
            finally:
                ends = self._wind_down(running)
        yield from ends

    def _wind_down(self, running: dict[Future[Any], tuple[Job, Any]]) -> list[tuple[Job, Outcome[Any]]]:
        """Interrupt what runs, kill what has not ended in time, and say how each ended."""
        for _, reference in running.values():
            self._ray.cancel(reference)
        until = time.monotonic() + GRACE_SECONDS
        ends: list[tuple[Job, Outcome[Any]]] = []
        for future, (job, reference) in running.items():
            try:
                future.exception(timeout=max(0.0, until - time.monotonic()))
            except TimeoutError:
                self._ray.cancel(reference, force=True)
                ends.append((job, Outcome(interrupted=True)))
            else:
                ends.append((job, self._outcome(future)))
        return ends

    def _outcome(self, future: Future[Any]) -> Outcome[Any]:
        error = future.exception()
        if error is None:
            outcome: Outcome[Any] = future.result()
            return outcome
        if isinstance(error, self._ray.exceptions.TaskCancelledError):
            return Outcome(interrupted=True)
        first_line = next(iter(str(error).splitlines()), "")
        return Outcome(error=f"the cluster gave it up: {type(error).__name__}: {first_line}")

    @contextmanager
    def _cluster(self) -> Iterator[None]:
        """A connection for the length of the block."""
        if self._ray.is_initialized():
            yield
            return
        own: set[psutil.Process] = set()
        with _own_signals():
            if self._address is not None:
                self._connect(self._address)
            else:
                own = self._start()
        try:
            yield
        finally:
            with _own_signals():
                self._ray.shutdown()
            if own:
                _see_off(own)

    def _connect(self, address: str, **own: Any) -> None:
        try:
            self._ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **own)
        except Exception as error:  # a bare Exception where a node does not come up in time
            where = f"at {address} (retrain.ray_address)" if self._address else "on this machine"
            raise BackendError(f"no Ray {where}: {error}") from error

    def _start(self) -> set[psutil.Process]:
        """A Ray of our own, and the processes that it is."""
        left = _STARTS
        while True:
            left -= 1
            before = _children()
            try:
                self._connect(
                    "local",
                    num_cpus=self._processes,
                    include_dashboard=False,
                    object_store_memory=_OBJECT_STORE_BYTES,
                )
            except BackendError as error:
                self._ray.shutdown()
                _kill(_children() - before)
                if not left:
                    raise
                _log.warning("retrain.ray_did_not_start", why=str(error), tries_left=left)
            else:
                return _children() - before


def _children() -> set[psutil.Process]:
    import psutil  # of the extra, as Ray is

    return set(psutil.Process().children(recursive=True))


def _kill(processes: set[psutil.Process]) -> None:
    """What a start that failed has left."""
    import psutil  # as above

    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=GRACE_SECONDS)


def _see_off(processes: set[psutil.Process]) -> None:
    """Wait for what was told to end, and kill what does not."""
    import psutil  # as above

    _, alive = psutil.wait_procs(processes, timeout=GRACE_SECONDS)
    _kill(set(alive))


@contextmanager
def _own_signals() -> Iterator[None]:
    """Put back the handlers that Ray replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            if handler is not None:
                signal.signal(number, handler)


def _run(work: Callable[[Job], Result], job: Job) -> Outcome[Result]:
    try:
        return Outcome(work(job))
    except Exception as error:  # noqa: BLE001 - as text, like a local worker; Ray would retry nothing of it
        return Outcome(error=f"{type(error).__name__}: {' '.join(str(error).split())}")
