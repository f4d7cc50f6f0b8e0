"""`signalserve serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from signalserve.cli.exits import FAILED, say_error
from signalserve.cli.options import ConfigOption, refuse_file


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
    token_file: Annotated[
        Path | None,
        typer.Option(help="Who may do what, from `signalserve token`; overrides security.token_file."),
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(help="PEM file of the certificate; overrides security.tls_cert.")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(help="PEM file of its key; overrides security.tls_key.")
    ] = None,
    tls_ca: Annotated[
        Path | None,
        typer.Option(
            help="Clients must show a certificate of these authorities; overrides security.tls_client_ca."
        ),
    ] = None,
) -> None:
    """Serve the registry's production models over gRPC until SIGTERM or Ctrl-C.

    An address other than loopback needs TLS and a token file: `--tls-cert`, `--tls-key` and `--token-file`.

    Prints `ready on HOST:PORT` on stdout once the first load of every production model has ended and some model is
    served; with `server.strict_ready` once every one is. `signalserve status` says what could not be loaded.
    """
    # the server takes a second to import, which --help need not wait for
    from signalserve.config.logs import configure_logs
    from signalserve.config.settings import load_settings, overridden
    from signalserve.registry import open_registry
    from signalserve.server.bootstrap import run_server
    from signalserve.server.ports import PortTakenError

    settings = load_settings(config)
    settings = overridden(
        settings,
        server={"port": port, "host": host, "workers": workers},
        ml={"models_dir": registry},
        security={
            "token_file": token_file,
            "tls_cert": tls_cert,
            "tls_key": tls_key,
            "tls_client_ca": tls_ca,
        },
    )
    configure_logs(settings.logging)
    refuse_file(settings.ml.models_dir, "the registry is a folder")
    open_registry(settings.ml.models_dir).store.check()  # a typing error, or a disk that is away

    def ready(bound: int) -> None:
        print(f"ready on {settings.server.host}:{bound}", flush=True)

    try:
        code = run_server(settings, ready)
    except PortTakenError as error:
        say_error(str(error))
        raise typer.Exit(FAILED) from None
    raise typer.Exit(code)
