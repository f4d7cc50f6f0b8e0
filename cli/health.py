"""`signalserve health`: one look at the gRPC health service, for containers and load balancers."""

from __future__ import annotations

from typing import Annotated

import typer

from signalserve.cli.connection import Connection, open_endpoint, reaches_server
from signalserve.cli.exits import FAILED, SERVER_AWAY, say_error, with_way
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
    """Ask whether the server serves: exit code 0 only for SERVING."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    reach = open_endpoint(connection.settings().client)
    address = reach.target
    channel = (
        grpc.insecure_channel(address, reach.options)
        if reach.tls is None
        else grpc.secure_channel(address, reach.tls.credentials, reach.options)
    )
    with channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=seconds)
        except grpc.RpcError as error:
            say_error(f"{address}: {with_way(error.details() or 'no answer')}")
            raise typer.Exit(SERVER_AWAY) from None
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    console.print(status)
    if status != "SERVING":
        raise typer.Exit(FAILED)
