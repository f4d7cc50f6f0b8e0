"""What moves: a stream that says that something changed, so that nobody has to ask for it all the time.

1. A look costs a few `stat` calls; nothing is read or parsed. It is taken every `poll_seconds`, whoever listens.
2. What was seen travels as the event's id, made of the files' signatures alone. So a listener that comes back, to this
   worker or another, is told at once whether something changed meanwhile.
3. A stream ends by itself after `longest_seconds` (the browser comes back), when its listener has gone, and when the
   lab stops. There are at most `most` of them a process, and `most_of_one` of one user or address.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from signalserve.lab.parts import Lab
from signalserve.lab.plain import json_bytes

TOPICS = ("registry", "live", "backtests")


class TooManyError(Exception):
    """So many listen already."""


class Stopping:
    """Whether the lab is about to stop. Safe to set from a signal handler."""

    def __init__(self) -> None:
        self._set = threading.Event()

    def set(self) -> None:
        """Say so."""
        self._set.set()

    def __bool__(self) -> bool:
        return self._set.is_set()


@dataclass(frozen=True)
class Pace:
    """How a stream behaves; seconds."""

    poll_seconds: float = 0.5
    heartbeat_seconds: float = 15.0
    longest_seconds: float = 1_800.0
    most: int = 64
    most_of_one: int = 16


class Changes:
    """The streams of one process."""

    def __init__(self, lab: Lab, stopping: Stopping, pace: Pace | None = None) -> None:
        self._lab = lab
        self._stopping = stopping
        self._pace = pace or Pace()
        self._listeners: Counter[str] = Counter()

    @contextmanager
    def place(self, who: str) -> Iterator[None]:
        """One listener more, for the length of the block.

        Raises:
            TooManyError: there is no room.
        """
        self.check_room(who)
        self._listeners[who] += 1
        try:
            yield
        finally:
            self._listeners[who] -= 1
            if not self._listeners[who]:
                del self._listeners[who]

    def check_room(self, who: str) -> None:
        """Raise TooManyError where there is no room for one listener more."""
        if self._listeners.total() >= self._pace.most or self._listeners[who] >= self._pace.most_of_one:
            raise TooManyError("too many pages listen already; close some")

    async def stream(
        self, who: str, last_id: str, gone: Callable[[], Awaitable[bool]]
    ) -> AsyncIterator[bytes]:
        """Server-sent events, one a change: `event: registry`, `live` or `backtests`.

        Args:
            who: a user's name, or an address, whose share of the places it takes.
            last_id: the id of the last event that the listener has seen; empty for none.
            gone: whether the listener has gone.
        """
        loop = asyncio.get_running_loop()
        pace = self._pace
        with ExitStack() as stack:
            try:
                stack.enter_context(self.place(who))
            except TooManyError:  # another was quicker since there was room
                return
            seen = await asyncio.to_thread(self._look)
            before = _parts(last_id)
            end = loop.time() + pace.longest_seconds
            beat = loop.time() + pace.heartbeat_seconds
            # the id goes out first, so that what changes from now on is not missed, whenever the listener comes back
            yield b"retry: 2000\n" + _event("hello", seen)
            for topic in TOPICS:
                if before.get(topic, seen[topic]) != seen[topic]:
                    yield _event(topic, seen)
            while not self._stopping and loop.time() < end and not await gone():
                await asyncio.sleep(pace.poll_seconds)
                now = await asyncio.to_thread(self._look)
                changed = [topic for topic in TOPICS if now[topic] != seen[topic]]
                seen = now
                for topic in changed:
                    yield _event(topic, seen)
                if changed:
                    beat = loop.time() + pace.heartbeat_seconds
                elif loop.time() >= beat:
                    beat = loop.time() + pace.heartbeat_seconds
                    yield b": still here\n\n"

    def _look(self) -> Mapping[str, str]:
        signatures = {
            "registry": self._lab.registry.store.signature(),
            "live": self._lab.live.signature(),
            "backtests": self._lab.backtests.folder_signature(),
        }
        return {topic: _short(value) for topic, value in signatures.items()}


def _event(topic: str, seen: Mapping[str, str]) -> bytes:
    identity = ".".join(seen[name] for name in TOPICS)
    data = json_bytes({"topic": topic, "signature": seen.get(topic, identity)})
    return b"id: " + identity.encode() + b"\nevent: " + topic.encode() + b"\ndata: " + data + b"\n\n"


def _parts(last_id: str) -> dict[str, str]:
    values = last_id.split(".")
    return dict(zip(TOPICS, values, strict=True)) if len(values) == len(TOPICS) else {}


def _short(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:12]
