"""`signalserve serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from signalserve.cli.exits import FAILED, say_error
from signalserve.cli.options import ConfigOption, refuse_file
from signalserve.cli.output import remark


def serve(
    config: ConfigOption = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port; overrides server.port. 0 takes a free one.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address; overrides server.host.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; overrides server.workers.")] = None,
    registry: Annotated[
        Path | None, typer.Option("--registry", "-r", help="Overrides ml.models_dir.")
    ] = None,
) -> None:
    """Serve the registry's production models over gRPC until SIGTERM or Ctrl-C.

    Prints `ready on HOST:PORT` on stdout once every production model is loaded and verified.
    """
    # the server takes a second to import, which --help need not wait for
    from signalserve.config.logs import configure_logs
    from signalserve.config.settings import load_settings
    from signalserve.server.bootstrap import run_server
    from signalserve.server.ports import PortTakenError

    settings = load_settings(config)
    changes = {
        name: value
        for name, value in (("port", port), ("host", host), ("workers", workers))
        if value is not None
    }
    settings = settings.model_copy(update={"server": settings.server.model_copy(update=changes)})
    if registry is not None:
        settings = settings.model_copy(update={"ml": settings.ml.model_copy(update={"models_dir": registry})})
    configure_logs(settings.logging)
    refuse_file(settings.ml.models_dir, "the registry is a folder")
    if not settings.ml.models_dir.is_dir():
        remark("note:", f"{settings.ml.models_dir} does not exist yet; the server waits for the first model")

    def ready(bound: int) -> None:
        print(f"ready on {settings.server.host}:{bound}", flush=True)

    try:
        code = run_server(settings, ready)
    except PortTakenError as error:
        say_error(str(error))
        raise typer.Exit(FAILED) from None
    raise typer.Exit(code)
