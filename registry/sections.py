"""Long lists as JSON lines, each a part of one of them: `["name",[item, …]]`.

Short lines, since a thread that spells a long one lets no other one run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from signalserve.registry.events import canonical, parsed

_ITEMS = 500


def written(sections: Iterable[tuple[str, Iterable[Any]]]) -> Iterator[bytes]:
    """The lines of some lists, line ends included; the same lists give the same lines."""
    for name, items in sections:
        rest = iter(items)
        while part := list(islice(rest, _ITEMS)):
            yield canonical([name, part]) + b"\n"


def read(lines: Iterable[bytes]) -> dict[str, list[Any]]:
    """The lists again, those alone that have an item.

    Raises:
        ValueError, TypeError: a line is none of `written`.
    """
    found: dict[str, list[Any]] = {}
    for line in lines:
        name, part = parsed(line)
        found.setdefault(name, []).extend(part)
    return found
