"""What each worker of one port serves, as the workers tell each other through the process that started them.

1. A worker reports after each change what it serves, and which keys are behind; it is told what the others reported.
2. Who hears of a revision that it has not seen looks at the registry at once.
3. A worker that has died is on no board: the one in its place listens once it serves what is newest.
4. Nobody waits for a full pipe: the newest report is sent when there is room.
5. Each reports every second, also where nothing is new: one that is not heard stands still.
6. One that can't serve a key that another one serves keeps off the port, as it would lose what the other can answer.
   Where no other one listens, it listens.
"""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from signalserve.common.key import Key
from signalserve.server.deadline import wait_seconds
from signalserve.server.snapshot import ServingSnapshot

# keys of one report, which is small so that it is written and read at once; more are all taken to be behind
_MOST_KEYS = 100
_LONGEST_WHY = 100
_TRY_AGAIN_SECONDS = 0.1

# how often a worker reports at least
BEAT_SECONDS = 1.0


class Report(NamedTuple):
    """What one worker serves: `behind` are the keys that answer by an earlier revision, and why.

    `seen` is the newest revision that it knows of; `all_behind`: there are more such keys than are named. `missing` are
    those of them that nothing answers for, and `listening` whether it is on the port. `silent`: it has not been heard
    since, for some seconds.
    """

    worker: int
    process_id: int
    revision: int
    seen: int
    behind: Mapping[Key, str]
    all_behind: bool = False
    missing: frozenset[Key] = frozenset()
    listening: bool = False
    silent: bool = False


class Lagging(NamedTuple):
    """A worker that does not serve a revision yet, which one it serves, and why."""

    worker: int
    process_id: int
    served_revision: int
    why: str


def report_of(worker: int, snapshot: ServingSnapshot, seen: int) -> Report:
    """What a worker says of itself."""
    behind = {key: f"{pending.model_id} is being loaded" for key, pending in snapshot.pending.items()}
    for failure in snapshot.failures:
        behind[failure.key] = f"{failure.model_id} could not be loaded: {failure.message}"
    named = {key: why[:_LONGEST_WHY] for key, why in list(behind.items())[:_MOST_KEYS]}
    return Report(
        worker,
        os.getpid(),
        snapshot.revision,
        max(seen, snapshot.revision),
        named,
        len(behind) > len(named),
        frozenset(key for key in named if key not in snapshot.by_key and key not in snapshot.pending),
    )


def lagging(report: Report, revision: int, keys: Collection[Key]) -> Lagging | None:
    """What a report says against a revision being served of some keys; None for nothing."""
    why = ""
    if report.silent:
        why = "it has not been heard for some seconds"
    elif report.revision < revision:
        why = f"it serves revision {max(report.revision, 0)}"
    else:
        found = [f"{key}: {report.behind[key]}" for key in keys if key in report.behind]
        if found:
            why = "; ".join(found)
        elif report.all_behind:
            why = "it is loading many models"
    if not why:
        return None
    served = report.revision if report.revision < revision else revision - 1
    return Lagging(report.worker, report.process_id, max(served, 0), why)


class Mailbox:
    """One end of a pipe: keeps the newest thing to say until there is room for it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._unsent: Any = None

    def say(self, message: Any) -> bool:
        """Send a message now or with the next call of `send`; False where it waits."""
        self._unsent = message
        return self.send()

    def send(self) -> bool:
        """Send what waits, if there is room."""
        if self._unsent is None:
            return True
        with suppress(OSError, ValueError):  # the other end has gone: whoever looks after it will see
            if not select.select([], [self._connection], [], 0)[1]:
                return False
            self._connection.send(self._unsent)
        self._unsent = None
        return True


class Peers:
    """The other workers, as one worker sees them; used from its event loop."""

    def __init__(
        self,
        worker: int,
        connection: Connection,
        nudge: Callable[[], None],
        on_warning: Callable[[], Awaitable[None]],
    ) -> None:
        """What is called when something is heard.

        `nudge`: another worker knows of a newer revision than this one has reported. `on_warning`: `warnings` says
        something else.
        """
        self.worker = worker
        self._connection = connection
        self._mailbox = Mailbox(connection)
        self._nudge = nudge
        self._on_warning = on_warning
        self._mine: Report | None = None
        self._listening = False
        self._trying = False
        self._others: tuple[Report, ...] = ()
        self._heard = asyncio.Condition()
        self._loop = asyncio.get_running_loop()
        self._telling: set[asyncio.Task[None]] = set()
        self._loop.add_reader(connection.fileno(), self._hear)

    def close(self) -> None:
        """Hear nothing more."""
        self._loop.remove_reader(self._connection.fileno())

    def tell(self, report: Report) -> None:
        """Tell the others what this worker serves, or has seen."""
        self._mine = report = report._replace(listening=self._listening)
        if not self._mailbox.say(report) and not self._trying:
            self._try_again()

    def tell_listening(self) -> None:
        """Tell the others that this worker is on the port."""
        self._listening = True
        if self._mine is not None:
            self.tell(self._mine)

    def better(self) -> str:
        """What another one on the port answers for and this worker does not, and why; empty for nothing."""
        mine = self._mine
        if mine is None:
            return ""
        newest = max(
            (report.revision for report in self._others if report.listening and not report.silent), default=-1
        )
        if newest > mine.revision:
            return f"revision {newest} is served, and the registry has {max(mine.revision, 0)}"
        found = {
            key
            for report in self._others
            if report.listening and not report.silent and not report.all_behind
            for key in mine.missing - report.missing
        }
        return "; ".join(f"{key}: {mine.behind[key]}" for key in sorted(found))

    def warnings(self) -> list[str]:
        """What keeps other workers off the port, for the status."""
        mine = self._mine
        if mine is None:
            return []
        found = []
        for report in self._others:
            if report.silent:
                found.append(
                    f"worker {report.worker} (process {report.process_id}) has not been heard for some seconds: it "
                    "stands still, and is killed and started again after server.silence_seconds"
                )
                continue
            if report.listening:
                continue
            worse = [f"{key}: {report.behind[key]}" for key in sorted(report.missing - mine.missing)]
            if 0 <= report.revision < mine.revision:
                worse.append(f"it finds revision {report.revision} in the registry")
            if worse:
                found.append(
                    f"worker {report.worker} (process {report.process_id}) keeps off the port until it can serve what "
                    f"this one does: {'; '.join(worse)}"
                )
        return found

    def announce(self, revision: int) -> None:
        """Tell the others that there is a revision, before this worker serves it."""
        if self._mine is not None and self._mine.seen < revision:
            self.tell(self._mine._replace(seen=revision))

    async def wait_for(self, revision: int, keys: Collection[Key], until: float | None) -> list[Lagging]:
        """The others that do not serve a revision of some keys by `until` (monotonic seconds), or none at once."""
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_seconds(until)), self._heard:
                await self._heard.wait_for(lambda: not self._lagging(revision, keys))
        return self._lagging(revision, keys)

    def _lagging(self, revision: int, keys: Collection[Key]) -> list[Lagging]:
        found = (lagging(report, revision, keys) for report in self._others)
        return [item for item in found if item is not None]

    def _try_again(self) -> None:
        self._trying = not self._mailbox.send()
        if self._trying:
            self._loop.call_later(_TRY_AGAIN_SECONDS, self._try_again)

    def _hear(self) -> None:
        try:
            board: tuple[Report, ...] = self._connection.recv()
        except (EOFError, OSError):
            self.close()  # the parent has gone; this worker drains
            return
        before = self.warnings()
        self._others = tuple(report for report in board if report.worker != self.worker)
        warned = self.warnings() != before
        if self._mine is not None and any(report.seen > self._mine.seen for report in self._others):
            self._nudge()
        task = self._loop.create_task(self._tell_waiting(warned=warned))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell_waiting(self, *, warned: bool) -> None:
        async with self._heard:
            self._heard.notify_all()
        if warned:
            await self._on_warning()
