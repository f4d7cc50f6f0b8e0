"""What every route is handed: the lab, who asks, and what the server serves for them."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Query
from starlette.requests import Request

from signalserve.common.key import MAX_LENGTH
from signalserve.lab.identity import CurrentUser
from signalserve.lab.parts import Lab
from signalserve.lab.server import ServerState


def _lab(request: Request) -> Lab:
    lab: Lab = request.app.state.lab
    return lab


TheLab = Annotated[Lab, Depends(_lab)]


def _status(lab: TheLab, user: CurrentUser) -> ServerState:
    return lab.server.status(user.token)


Status = Annotated[ServerState, Depends(_status)]

_MODEL_ID = "BTCUSDT_15m_rf_20260101_000000"

ModelId = Annotated[
    str,
    Path(
        description="The model's id; it may hold `_`, `-` and any other letter, percent-encoded.",
        max_length=MAX_LENGTH,
        examples=[_MODEL_ID],
    ),
]
Symbol = Annotated[
    str, Path(description="The symbol, e.g. `BTC-PERP`.", max_length=2 * MAX_LENGTH, examples=["BTCUSDT"])
]
Timeframe = Annotated[
    str, Path(description="The length of a bar, e.g. `15m`.", max_length=MAX_LENGTH, examples=["15m"])
]
SymbolFilter = Annotated[str, Query(description="Only this symbol; empty for any.", max_length=MAX_LENGTH)]
TimeframeFilter = Annotated[
    str, Query(description="Only this timeframe; empty for any.", max_length=MAX_LENGTH)
]
PageNumber = Annotated[
    int, Query(description="Counts from 1; one beyond the last is the last.", ge=1, le=1_000_000)
]
PerPage = Annotated[int, Query(description="How many on a page.", ge=1, le=500)]
Points = Annotated[int, Query(description="Thin long series to about so many points.", ge=10, le=20_000)]
