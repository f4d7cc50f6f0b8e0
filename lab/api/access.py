"""`/api/ml/access`: who has which role, for the admin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from signalserve.access.table import TABLE
from signalserve.lab.api import examples
from signalserve.lab.api.answers import answer, documented
from signalserve.lab.identity import Doorkeeper

router = APIRouter(prefix="/api/ml", tags=["access"])


@dataclass(frozen=True)
class Operation:
    """A row of the table; `roles` is empty where anybody may."""

    operation: str
    roles: tuple[str, ...]
    anybody: bool


@dataclass(frozen=True)
class Access:
    """The table, and the token file's entries without anything secret."""

    operations: tuple[Operation, ...]
    credentials: tuple[dict[str, Any], ...]


@router.get("/access", responses=documented(Access, examples.ACCESS, "The table and the credentials.", 403))
def access(request: Request) -> Response:
    """Which role may do what, and who has which."""
    door: Doorkeeper = request.app.state.door
    operations = tuple(
        Operation(row.operation, tuple(sorted(row.roles or ())), row.roles is None) for row in TABLE
    )
    return answer(request, Access(operations, tuple(door.credentials())))
