"""Each route of the lab has its row in the table of access, or the lab does not start."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from starlette.routing import BaseRoute, Mount, Route

from signalserve.access.table import without_row


def operations_of(routes: Iterable[BaseRoute]) -> list[str]:
    """What the routes answer, as the table writes it; a mounted folder as `GET /path/{path}`."""
    return [operation for route in routes for operation in _operations(route)]


def check_rows(routes: Iterable[BaseRoute]) -> None:
    """Refuse a route that nobody said who may use.

    Raises:
        KeyError: there is one.
    """
    if missing := without_row(operations_of(routes)):
        raise KeyError(f"no row in access/table.py for {', '.join(missing)}: who may do it?")


def _operations(route: BaseRoute) -> Iterator[str]:
    if isinstance(route, Mount):
        yield f"GET {route.path}/{{path}}"
    elif isinstance(route, Route):
        for method in sorted(route.methods or ()):
            if method != "HEAD":
                yield f"{method} {route.path}"
    else:
        raise TypeError(f"{route!r} is neither a route nor a folder")
