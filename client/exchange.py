"""The rules of one prediction stream, without any I/O; the sync and the async stream both keep them.

1. A request that was sent is *pending* until its answer arrives; an answer that arrived is *unread* until the
   caller takes it. Pending and unread together never exceed `max_pending`.
2. Answers arrive in the order of the requests; one with another sequence than the oldest pending one's
   breaks the stream.
3. The oldest pending answer is due `deadline` seconds after its send; when it is overdue, the stream breaks.
4. A stream breaks once, with one error. What arrived before stays readable; after it, sending and reading
   raise that error.
5. After `close` nothing can be sent, and reading ends after the last answer.
"""

import copy
from collections import deque

from ..v1 import prediction_pb2
from .errors import DeadlineExceeded, InternalError, ResourceExhausted, SignalServeError, Unavailable
from .values import StreamItem


class Exchange:
    """What was sent, what arrived, and how it ended. Times are seconds of a monotonic clock."""

    def __init__(self, max_pending: int, deadline: float) -> None:
        if max_pending < 1:
            raise ValueError(f"max_pending is {max_pending}; give 1 or more")
        self.deadline = deadline
        self.closing = False
        """Nothing more will be sent."""
        self.ended = False
        """Nothing more will arrive."""
        self._max_pending = max_pending
        self._pending: deque[tuple[int, float]] = deque()
        self._unread: deque[StreamItem] = deque()
        self._error: SignalServeError | None = None
        self._last_sequence = 0

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

    def sent(self, sequence: int | None, now: float) -> int:
        """Note a request as pending and return its sequence: the given one, else the last one plus 1."""
        number = self._last_sequence + 1 if sequence is None else sequence
        self._pending.append((number, now))
        self._last_sequence = number
        return number

    def arrived(self, message: prediction_pb2.PredictStreamResponse, now: float) -> None:
        """Note an answer as unread; InternalError where it is not the oldest pending one's."""
        due = self._pending[0][0] if self._pending else None
        if message.sequence != due:
            raise InternalError(
                f"the server answered sequence {message.sequence} where {due} was due", reason="OUT_OF_ORDER"
            )
        _, sent_at = self._pending.popleft()
        self._unread.append(StreamItem.from_proto(message, (now - sent_at) * 1000.0))

    def finish(self) -> None:
        """Note that the server ended the stream without an error."""
        if self._pending or not self.closing:
            self.fail(Unavailable("the server ended the stream; open another", reason="STREAM_ENDED"))
        self.ended = True

    def fail(self, error: SignalServeError) -> None:
        """Break the stream; the first error counts, and none once everything was answered after close."""
        if not self.ended and (self._pending or not self.closing):
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
        due = max(0.0, self._pending[0][1] + self.deadline - now)
        return due if longest is None else min(due, longest)

    def overdue(self, now: float) -> DeadlineExceeded | None:
        """Return the error to break the stream with, where the oldest pending answer is overdue."""
        if self.ended or not self._pending or self._pending[0][1] + self.deadline > now:
            return None
        return DeadlineExceeded(
            f"no answer to sequence {self._pending[0][0]} within {self.deadline * 1000:.0f} ms; the "
            "stream is given up: open another"
        )

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
