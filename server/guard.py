"""What stands around every call, and the one place where answers and refusals are counted.

1. Who calls is asked first, where the server asks at all: who may not call takes no place and is answered slowly.
   A stream ends when what it was admitted by does.
2. A draining server admits nothing more. `server.max_in_flight` bounds what is worked on: unary calls, items of
   streams, and the parts in which a batch is computed side by side beyond its first. Streams are bounded by
   `server.max_streams`.
3. Each answer and each refusal is counted once, under the name of its RPC: an item of a batch or of a stream for
   itself, any other call as a whole. A call whose items were counted is not counted again for having ended well.
4. What a handler may know of its caller and its time, it asks its `Call`.
5. A drain waits for every call. An open stream ends after the answers that it owes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NamedTuple, Protocol, TypeVar

from signalserve.access.errors import AccessError
from signalserve.access.gatekeeper import Gatekeeper
from signalserve.access.identity import Identity
from signalserve.access.table import Row
from signalserve.server.errors import DrainingError, OverloadedError
from signalserve.server.metrics import RpcCounts

T = TypeVar("T")

# a message that is here is read in far less; one that waits for our answer takes a round trip
_LAST_LOOK_SECONDS = 0.02
_PATIENCE_SECONDS = 0.25


class Caller(NamedTuple):
    """Who asks: where the call comes from, and a name, which is `verified` or only what the caller says.

    `via` is what the call was made through, where it says so.
    """

    address: str
    name: str = ""
    verified: bool = False
    via: str = ""

    def __str__(self) -> str:
        if self.verified:
            return self.name
        return f"{self.name} (unverified, {self.address})" if self.name else self.address


class Carrier(Protocol):
    """What a protocol has of each call."""

    def time_remaining(self) -> float | None:
        """Seconds to the deadline, None for no deadline."""


class Call:
    """One RPC that is being answered, as its handler sees it.

    `counted` says whether an answer or a refusal was counted already; `identity` who was admitted, None where
    nobody was asked.
    """

    __slots__ = ("_carrier", "_counts", "_identify", "counted", "identity")

    def __init__(self, counts: RpcCounts, carrier: Carrier, identify: Callable[[Any], Caller]) -> None:
        self._counts = counts
        self._carrier = carrier
        self._identify = identify
        self.counted = False
        self.identity: Identity | None = None

    def remaining(self) -> float | None:
        """Seconds to the deadline, None for no deadline."""
        return self._carrier.time_remaining()

    @property
    def caller(self) -> Caller:
        """Who asks; found out only when somebody wants to know, since most calls never do."""
        caller = self._identify(self._carrier)
        return caller if self.identity is None else caller._replace(name=self.identity.name, verified=True)

    def answered(self) -> None:
        """Count an answer; from any thread."""
        self.counted = True
        self._counts.answered()

    def ended_well(self) -> None:
        """Count the whole call as answered, unless its items were counted."""
        if not self.counted:
            self.answered()

    def refused(self, code: str) -> None:
        """Count a refusal by the name of its status code; from any thread."""
        self.counted = True
        self._counts.refused(code)


class CallGuard:
    """Counts what is in flight, and refuses when draining or full."""

    def __init__(
        self,
        max_in_flight: int,
        counts: Callable[[str], RpcCounts],
        gatekeeper: Gatekeeper | None = None,
        max_streams: int = 1000,
    ) -> None:
        """`counts` gives the counters of an RPC by its name; without a gatekeeper nobody is asked who they are."""
        self._max_in_flight = max_in_flight
        self._max_streams = max_streams
        self.counts = counts
        self.gatekeeper = gatekeeper
        self.in_flight = 0
        self.draining = False
        self.streams: set[StreamCall] = set()
        self._emptied = asyncio.Event()

    def recheck(self) -> None:
        """End the streams of those who may not call any more."""
        if self.gatekeeper is None:
            return
        for stream in list(self.streams):
            if stream.row is not None:
                try:
                    self.gatekeeper.still(stream.row, stream.identity)
                except AccessError as error:
                    stream.end(error)

    def begin(self) -> None:
        """Admit a unary call, which must `end`.

        Raises:
            DrainingError, OverloadedError: it is not admitted.
        """
        if self.draining:
            raise draining()
        if self.in_flight >= self._max_in_flight:
            raise self._overloaded()
        self.in_flight += 1

    def begin_item(self) -> None:
        """Admit an item of an open stream, which must `end`; while draining too, since a stream answers what it owes.

        Streams ask again the moment they are answered, so they leave the last of several places to calls.

        Raises:
            OverloadedError: it is not admitted.
        """
        if self.in_flight >= max(1, self._max_in_flight - 1):
            raise self._overloaded()
        self.in_flight += 1

    def take(self, most: int) -> int:
        """Further places for a call that was admitted, as many as there are; each must `end`."""
        taken = max(0, min(most, self._max_in_flight - self.in_flight))
        self.in_flight += taken
        return taken

    def end(self, places: int = 1) -> None:
        """The work is over, well or badly."""
        self.in_flight -= places
        if self.draining:
            self._tell_if_empty()

    def _overloaded(self) -> OverloadedError:
        return OverloadedError(
            "TOO_MANY_IN_FLIGHT",
            f"{self.in_flight} calls and items are being worked on already; try again shortly",
        )

    def open(self, stream: StreamCall) -> None:
        """Admit a stream, which must `close`.

        Raises:
            DrainingError, OverloadedError: it is not admitted.
        """
        if self.draining:
            raise draining()
        if len(self.streams) >= self._max_streams:
            raise OverloadedError(
                "TOO_MANY_STREAMS",
                f"{self._max_streams} streams are open already; try again shortly, or ask another server",
            )
        self.streams.add(stream)

    def close(self, stream: StreamCall) -> None:
        """The stream is over, well or badly."""
        self.streams.discard(stream)
        self._tell_if_empty()

    def drain(self) -> None:
        """Refuse new calls; open streams end after the answers that they owe."""
        self.draining = True
        for stream in list(self.streams):
            stream.wake_if_idle()
        self._tell_if_empty()

    async def wait_until_empty(self) -> None:
        """Wait until every call has ended; `drain` was called before."""
        await self._emptied.wait()

    def _tell_if_empty(self) -> None:
        if self.draining and not self.in_flight and not self.streams:
            self._emptied.set()


class StreamCall(Call):
    """A stream's call, which takes part in the drain: it can be woken while it waits for its peer."""

    __slots__ = ("_guard", "_idle", "_patience", "_task", "ended_by", "row")

    def __init__(
        self, guard: CallGuard, counts: RpcCounts, carrier: Carrier, identify: Callable[[Any], Caller]
    ) -> None:
        super().__init__(counts, carrier, identify)
        self._guard = guard
        self._task: asyncio.Task[Any] | None = asyncio.current_task()
        self._idle = False
        self._patience = _PATIENCE_SECONDS
        self.row: Row | None = None
        self.ended_by: AccessError | None = None

    @property
    def ending(self) -> bool:
        """Whether the stream should end: as soon as it owes nothing where the server drains, else at once."""
        return self._guard.draining or self.ended_by is not None

    def end(self, error: AccessError) -> None:
        """Take no more of the stream's requests; it ends with this error, or when told again if its peer reads none."""
        if self.ended_by is not None and self._task is not None:
            self._task.cancel()
        self.ended_by = error
        self.wake_if_idle()

    async def wait_for(self, arrival: Awaitable[T]) -> T | None:
        """Wait for something; None where the stream is to end first.

        Cancelling the wait is cheaper than racing two tasks for every message of a stream.
        """
        if self.ended_by is not None:
            if isinstance(arrival, Coroutine):
                arrival.close()  # it was not begun
            return None
        self._task = asyncio.current_task()
        self._idle = True
        try:
            return await (self._last_look(arrival) if self._guard.draining else arrival)
        except TimeoutError:
            return None
        except asyncio.CancelledError:
            if self.ending and self._task is not None and self._task.cancelling():
                self._task.uncancel()
                return None
            raise
        finally:
            self._idle = False

    async def _last_look(self, arrival: Awaitable[T]) -> T:
        """What has arrived already is still answered; a peer that keeps sending can't hold up the drain."""
        started = time.monotonic()
        try:
            async with asyncio.timeout(min(_LAST_LOOK_SECONDS, self._patience)):
                return await arrival
        finally:
            self._patience -= time.monotonic() - started

    def wake_if_idle(self) -> None:
        """Interrupt `wait_for`; a stream that is answering looks at `ending` by itself."""
        if self._idle and self._task is not None:
            self._task.cancel()


def draining() -> DrainingError:
    """What a call is refused with, and what a stream ends with, while the server stops."""
    return DrainingError("DRAINING", "the server is stopping; connect to another one or try again")
