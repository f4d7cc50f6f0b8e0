"""Names that were given and are almost the ones that are missing: `rsi14` for `rsi_14`.

It runs where a request is refused, on the event loop too, so what it may compare is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from itertools import islice

_MOST_GIVEN, _MOST_WANTED, _MOST_COMPARED, _LONGEST = 500, 3, 30, 40
_SIGNS = re.compile(r"[\W_]+")
_ALIKE = 0.75


def near_names(missing: Sequence[str], given: Iterable[str]) -> dict[str, str]:
    """For each missing name that has one, the given name that is closest to it.

    Those that differ in case or signs alone are found among the first hundreds, other slips of the pen for a few.

    >>> near_names(["rsi_14", "close"], ["rsi14", "volume"])
    {'rsi_14': 'rsi14'}
    """
    left = {_plain(name): name for name in islice(given, _MOST_GIVEN)}
    near: dict[str, str] = {}
    for name in missing:
        if (found := left.get(_plain(name))) is not None:
            near[name] = found
    for name in islice((name for name in missing if name not in near), _MOST_WANTED):
        plain = _plain(name)
        if len(plain) > _LONGEST:
            continue
        alike = islice((other for other in left if abs(len(other) - len(plain)) <= 2), _MOST_COMPARED)
        for other in get_close_matches(plain, alike, n=1, cutoff=_ALIKE):
            near[name] = left[other]
    return near


def _plain(name: str) -> str:
    return _SIGNS.sub("", name.casefold())
