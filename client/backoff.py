"""How long to wait before the next try."""

from __future__ import annotations

import random
from collections.abc import Callable

_random = random.SystemRandom()


class Backoff:
    """Pauses that double from `first` to `longest` seconds, each shortened by up to a half by chance.

    The chance keeps a hundred engines that lost one server from coming back all at once.
    """

    def __init__(
        self, first: float = 0.05, longest: float = 1.0, *, chance: Callable[[], float] = _random.random
    ) -> None:
        if not 0.0 < first <= longest:
            raise ValueError(f"pauses from {first} to {longest} seconds make no sense")
        self._first = first
        self._longest = longest
        self._chance = chance
        self._next = first

    def pause(self) -> float:
        """Give the seconds to wait now; the next pause is longer."""
        pause, self._next = self._next, min(self._next * 2.0, self._longest)
        return pause * (1.0 - 0.5 * self._chance())

    def reset(self) -> None:
        """Start over after a success."""
        self._next = self._first
