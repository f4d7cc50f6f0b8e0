"""Models are opened in threads of their own: once for all who wait, and nobody waits for ever."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from signalserve.server.errors import LoadTimeoutError
from signalserve.server.snapshot import ServedModel
from signalserve.server.threads import Job, StillRunningError, Threads


class Loading:
    """The loads of one kind that are under way, by a name; used from the event loop."""

    def __init__(self, threads: Threads, seconds: float) -> None:
        """`seconds` is how long a load may take, from when a thread takes it up."""
        self._threads = threads
        self._seconds = seconds
        self._under_way: dict[Hashable, Job[ServedModel]] = {}

    async def load(self, name: Hashable, work: Callable[[], ServedModel]) -> ServedModel:
        """What `work` gives, or what the load of that name that is under way gives.

        Raises:
            LoadTimeoutError: it takes too long; it goes on, and is not begun again before it has ended.
            Exception: whatever `work` raises.
        """
        job = self._under_way.get(name)
        if job is None:
            job = self._under_way[name] = self._threads.begin(work)
            job.future.add_done_callback(lambda _: self._ended(name))
        try:
            return await job.result(self._seconds)
        except StillRunningError:
            raise LoadTimeoutError(
                "LOADING",
                f"the model's load takes longer than server.load_seconds ({self._seconds:g}): a disk that does not "
                "answer, or a model that hangs while it is opened; it is served once that ends well",
                ended=job.future,
            ) from None

    def close(self) -> None:
        """Begin nothing more."""
        self._threads.close()

    def _ended(self, name: Hashable) -> None:
        job = self._under_way.pop(name)
        if not job.future.cancelled():
            job.future.exception()  # it is looked at, though nobody may wait any more
