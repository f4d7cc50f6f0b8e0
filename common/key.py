"""What one production model answers for, and the names that may become a folder, a row or a key."""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_LENGTH = 200
_UNSEEN = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


class Key(NamedTuple):
    """A symbol and a timeframe; as text `BTCUSDT/15m`."""

    symbol: str
    timeframe: str

    def __str__(self) -> str:
        return f"{self.symbol}/{self.timeframe}"

    @classmethod
    def parse(cls, text: str) -> Key:
        """The key of `SYMBOL/TIMEFRAME`.

        Raises:
            ValueError: the text has no slash, or nothing before or behind its last one.

        >>> Key.parse("BTCUSDT/15m")
        Key(symbol='BTCUSDT', timeframe='15m')
        """
        symbol, _, timeframe = text.rpartition("/")
        if not symbol or not timeframe:
            raise ValueError(f"{text!r} is no key; a key is written SYMBOL/TIMEFRAME, such as BTCUSDT/15m")
        return cls(symbol, timeframe)


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
    if _UNSEEN.search(value):
        return "holds a control character or a broken code point"
    return None
