"""The names that may become a folder, a row or a key."""

from __future__ import annotations

from typing import NamedTuple

from signalserve.registry.errors import InvalidArgumentError

MAX_LENGTH = 200


class Key(NamedTuple):
    """What one production model answers for."""

    symbol: str
    timeframe: str

    def __str__(self) -> str:
        return f"{self.symbol}/{self.timeframe}"


def name_problem(value: str) -> str | None:
    """Why a symbol, timeframe, model type or model_id can't be used; None if it can.

    A name becomes a folder's name or part of one, so it must not lead anywhere else. Apart from that any
    text goes, `BTC-PERP`, `BTC_USDT` and non-ASCII letters included.
    """
    if not value:
        return "is empty"
    if len(value) > MAX_LENGTH:
        return f"is longer than {MAX_LENGTH} characters"
    if value != value.strip():
        return "begins or ends with white space"
    if "/" in value or "\\" in value:
        return "holds a path separator"
    if value.startswith("."):
        return "begins with a dot"
    if any(
        ord(character) < 32 or ord(character) == 127 or 0xD800 <= ord(character) < 0xE000
        for character in value
    ):
        return "holds a control character or a broken code point"
    return None


def check_name(what: str, value: str) -> None:
    """Refuse a name that can't be used.

    Raises:
        InvalidArgumentError: it says which name and why; the reason is INVALID_SYMBOL, INVALID_MODEL_ID, ...
    """
    problem = name_problem(value)
    if problem is not None:
        raise InvalidArgumentError(
            f"{what} {value!r} {problem}", metadata={what: value}, reason=f"INVALID_{what.upper()}"
        )
