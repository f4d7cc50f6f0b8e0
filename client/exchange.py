"""The rules of one prediction stream, without any I/O; the sync and the async stream both keep them.

1. A request that was sent is *pending* until its answer arrives; an answer that arrived is *unread* until the
   caller takes it. Pending and unread together never exceed `max_pending`.
2. Answers arrive in the order of the requests; one with another sequence than the oldest pending one's
   breaks the stream.
3. The oldest pending answer is due `deadline` seconds after its send; when it is overdue, the stream breaks.
4. A stream breaks once, with one error. What arrived before stays readable; after it, sending and reading
   raise that error.
5. After `close` nothing can be sent, and reading ends after the last answer.

A *lasting* stream outlives its call to the server:

6. A call that ends because its server goes, or is full, breaks nothing: the pending requests are sent again over
   another call, with their sequences and in their order. Predictions change nothing on the server, so asking twice is
   safe. The same holds where a call ends with its credential, once it has answered: there may be a newer one.
7. A request that was pending when a third call was lost without a word is answered by that error: it may be what
   takes the servers down. Two may be lost with one server, where gRPC has not seen yet that the connection is gone.
   A refusal that the server gave a reason for did nothing, and is not counted.
8. An overdue answer is that request's error (DeadlineExceeded) and no more; the call is given up, as its server hangs,
   and the rest goes on over another one.
9. What else ends a call breaks the stream, as above.
"""

import copy
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from ..v1 import prediction_pb2
from .errors import (
    Cancelled,
    DeadlineExceeded,
    InternalError,
    ResourceExhausted,
    SignalServeError,
    Unauthenticated,
    Unavailable,
)
from .latency import LatencyWindow
from .values import StreamItem

_CALLS = 3
"""Of a request, where each was lost without a word."""


@dataclass(slots=True)
class _Pending:
    sequence: int
    sent_at: float
    message: prediction_pb2.PredictStreamRequest
    lost: int = 0


class Exchange:
    """What was sent, what arrived, and how it ended. Times are seconds of a monotonic clock."""

    def __init__(
        self,
        max_pending: int,
        deadline: float,
        *,
        lasting: bool = False,
        latencies: LatencyWindow | None = None,
    ) -> None:
        if max_pending < 1:
            raise ValueError(f"max_pending is {max_pending}; give 1 or more")
        self.deadline = deadline
        self.lasting = lasting
        self.closing = False
        """Nothing more will be sent."""
        self.ended = False
        """Nothing more will arrive."""
        self._max_pending = max_pending
        self._pending: deque[_Pending] = deque()
        self._unread: deque[StreamItem] = deque()
        self._error: SignalServeError | None = None
        self._last_sequence = 0
        self._latencies = LatencyWindow() if latencies is None else latencies

    @property
    def settled(self) -> bool:
        """Whether every request has its answer, or never will."""
        return self.ended or not self._pending

    def has_room(self) -> bool:
        """Whether one more may be sent now; raises the stream's error, or RuntimeError after close."""
        if self.closing:
            raise RuntimeError("the stream is closed; open another with client.stream()")
        if self._error is not None:
            raise copy.copy(self._error)
        return len(self._pending) + len(self._unread) < self._max_pending

    def sent(self, message: prediction_pb2.PredictStreamRequest, sequence: int | None, now: float) -> int:
        """Note a request as pending and give it its sequence: the given one, else the last one plus 1."""
        number = self._last_sequence + 1 if sequence is None else sequence
        message.request.sequence = number
        self._pending.append(_Pending(number, now, message))
        self._last_sequence = number
        return number

    def unanswered(self) -> Iterator[prediction_pb2.PredictStreamRequest]:
        """The pending requests, oldest first."""
        return (request.message for request in self._pending)

    def arrived(self, message: prediction_pb2.PredictStreamResponse, now: float) -> None:
        """Note an answer as unread; InternalError where it is not the oldest pending one's."""
        due = self._pending[0].sequence if self._pending else None
        if message.sequence != due:
            raise InternalError(
                f"the server answered sequence {message.sequence} where {due} was due", reason="OUT_OF_ORDER"
            )
        latency_ms = (now - self._pending.popleft().sent_at) * 1000.0
        item = StreamItem.from_proto(message, latency_ms)
        if item.ok:
            self._latencies.add(latency_ms)
        self._unread.append(item)

    def server_ended(self) -> Unavailable | None:
        """What it is that the server ended its call without an error; None where all is done."""
        if self._pending or not self.closing:
            return Unavailable("the server ended the stream; open another", reason="STREAM_ENDED")
        return None

    def goes_on(self, error: SignalServeError, *, proven: bool, given_up: bool) -> bool:
        """Whether the stream goes on over another call, after one ended with this error.

        `proven`: it has answered. `given_up`: by this side, as its server hung.
        """
        if not self.lasting or self.ended or not (given_up or _passes(error, proven=proven)):
            return False
        if not given_up and not error.reason:
            for request in self._pending:
                request.lost += 1
            while self._pending and self._pending[0].lost >= _CALLS:
                self._unread.append(StreamItem(None, error, sequence=self._pending.popleft().sequence))
        return True

    def expire(self, now: float) -> bool:
        """Answer what is overdue with its error, in a lasting stream; where there was any, the call is given up."""
        count = len(self._unread)
        while self.lasting and not self.ended and self._pending and self._due() <= now:
            error = DeadlineExceeded(self._no_answer())
            self._unread.append(StreamItem(None, error, sequence=self._pending.popleft().sequence))
        return len(self._unread) > count

    def fail(self, error: SignalServeError | None) -> None:
        """Break the stream; the first error counts, and none once everything was answered after close."""
        if error is not None and not self.ended and (self._pending or not self.closing):
            self._error = error
        self.ended = True

    def take(self) -> StreamItem | None:
        """Return the next unread answer, None where there is none yet; after the last raise the error."""
        if self._unread:
            return self._unread.popleft()
        if self._error is not None:
            raise copy.copy(self._error)
        return None

    @property
    def exhausted(self) -> bool:
        """Whether reading is over: all was answered and nothing more can be sent."""
        return not self._unread and self._error is None and self.closing and self.settled

    def patience(self, now: float, longest: float | None = None) -> float | None:
        """Return the seconds until the oldest pending answer is overdue, at most `longest`; None for no limit."""
        if not self._pending:
            return longest
        due = max(0.0, self._due() - now)
        return due if longest is None else min(due, longest)

    def overdue(self, now: float) -> DeadlineExceeded | None:
        """Return the error to break the stream with, where the oldest pending answer is overdue."""
        if self.lasting or self.ended or not self._pending or self._due() > now:
            return None
        return DeadlineExceeded(f"{self._no_answer()}; the stream is given up: open another")

    def idle_patience(self, now: float, give_up: float) -> float | None:
        """Seconds to wait for a send; None while an answer is pending; DeadlineExceeded past `give_up`."""
        if self._pending:
            return None
        if now >= give_up:
            raise DeadlineExceeded(f"nothing was sent to answer within {self.deadline * 1000:.0f} ms")
        return give_up - now

    def full(self) -> ResourceExhausted:
        """Return the error for a send that found no room in time."""
        return ResourceExhausted(
            f"{len(self._unread)} answers are unread and {len(self._pending)} pending, all that max_pending "
            "allows; read the answers while you send",
            reason="STREAM_FULL",
        )

    def _due(self) -> float:
        return self._pending[0].sent_at + self.deadline

    def _no_answer(self) -> str:
        return f"no answer to sequence {self._pending[0].sequence} within {self.deadline * 1000:.0f} ms"


def _passes(error: SignalServeError, *, proven: bool) -> bool:
    """Whether another call may do better than the one that ended so."""
    if isinstance(error, ResourceExhausted):
        return error.retry_after is not None
    # a server that stops at once cancels its calls
    return isinstance(error, Unavailable | Cancelled) or (proven and isinstance(error, Unauthenticated))
