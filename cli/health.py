"""`signalserve health`: one look at the gRPC health service, for containers and load balancers."""

from __future__ import annotations

from typing import Annotated

import typer

from signalserve.cli.connection import Connection, reaches_server
from signalserve.cli.exits import FAILED, NOT_FOUND, say_error
from signalserve.cli.output import console


@reaches_server
def health(
    connection: Connection,
    service: Annotated[
        str,
        typer.Option(help="A service, a key (BTCUSDT/15m), registry or liveness; the default is the server."),
    ] = "",
    seconds: Annotated[float, typer.Option(min=0.1, help="How long to wait.")] = 3.0,
) -> None:
    """Ask whether the server serves: exit code 0 only for SERVING, 4 where it knows no such service or key."""
    from signalserve.client.errors import NotFound

    with connection.open() as client:
        try:
            found = client.health(service, deadline_ms=seconds * 1000.0)
        except NotFound as error:
            say_error(f"{error.message}; keys are SYMBOL/TIMEFRAME, and `signalserve models` lists them")
            raise typer.Exit(NOT_FOUND) from None
    console.print(found.value)
    if not found.ok:
        raise typer.Exit(FAILED)
