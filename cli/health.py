"""`signalserve health`: one look at the gRPC health service, for containers and load balancers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from signalserve.cli.exits import FAILED, SERVER_AWAY, USAGE, say_error
from signalserve.cli.options import ConfigOption, TargetOption
from signalserve.cli.output import console


def health(
    service: Annotated[
        str, typer.Option(help="A service's full name; the default is the whole server.")
    ] = "",
    seconds: Annotated[float, typer.Option(min=0.1, help="How long to wait.")] = 3.0,
    config: ConfigOption = None,
    target: TargetOption = None,
) -> None:
    """Ask whether the server serves: exit code 0 only for SERVING."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    from signalserve.client.channel import endpoint

    address = target or _target(config)
    try:
        endpoint(address)
    except ValueError as error:
        say_error(str(error))
        raise typer.Exit(USAGE) from None
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=seconds)
        except grpc.RpcError as error:
            say_error(f"{address}: {error.details()}")
            raise typer.Exit(SERVER_AWAY) from None
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    console.print(status)
    if status != "SERVING":
        raise typer.Exit(FAILED)


def _target(config: Path | None) -> str:
    from signalserve.config.settings import load_settings

    return load_settings(config).client.target
