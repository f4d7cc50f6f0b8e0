"""`signalserve lab`: the web pages."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from signalserve.cli.connection import Connection, open_endpoint, reaches_server
from signalserve.cli.exits import FAILED, USAGE, say_error
from signalserve.cli.options import refuse_file
from signalserve.cli.output import remark

INSTALL = "pip install 'signalserve[lab]'"


def can_open() -> bool:
    """Whether the packages are there that the pages need."""
    return all(find_spec(name) is not None for name in ("fastapi", "uvicorn", "plotly", "python_multipart"))


@reaches_server
def lab(
    connection: Connection,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port; overrides lab.port. 0 takes a free one.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address; overrides lab.host.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; overrides lab.workers.")] = None,
    registry: Annotated[
        Path | None, typer.Option("--registry", "-r", help="Overrides ml.models_dir.")
    ] = None,
    tokens: Annotated[
        Path | None,
        typer.Option(help="Who may log in, from `signalserve token`; overrides security.token_file."),
    ] = None,
    https_cert: Annotated[
        Path | None, typer.Option(help="PEM file of the pages' own certificate; overrides security.tls_cert.")
    ] = None,
    https_key: Annotated[
        Path | None, typer.Option(help="PEM file of its key; overrides security.tls_key.")
    ] = None,
) -> None:
    """Open ML Lab, the web pages, until SIGTERM or Ctrl-C; prints its address.

    It reads the registry's folder, and asks the server for what is served and for every promote, rollback and
    archive. Those need a login with a token; on 127.0.0.1 everybody on this machine may read without one. Another
    address needs `--tokens`, `--https-cert` and `--https-key`; `--token-file` and `--tls-...` are for its own way to
    the server.
    """
    if not can_open():
        say_error(f"the pages need more packages: {INSTALL}")
        raise typer.Exit(FAILED)
    # these take a second to import, which --help need not wait for
    from signalserve.config.logs import configure_logs
    from signalserve.config.settings import overridden
    from signalserve.lab.app import run_lab
    from signalserve.registry import open_registry
    from signalserve.registry.errors import RegistryMissingError

    settings = overridden(
        connection.settings(),
        lab={"port": port, "host": host, "workers": workers},
        ml={"models_dir": registry},
        security={"token_file": tokens, "tls_cert": https_cert, "tls_key": https_key},
    )
    open_endpoint(settings.client)  # what it can't be reached by is said now, and not on each page
    configure_logs(settings.logging)
    refuse_file(settings.ml.models_dir, "the registry is a folder")
    try:
        open_registry(settings.ml.models_dir).store.check()
    except RegistryMissingError as error:
        remark("note:", f"{error}; the pages wait for the first model")
    scheme = "http" if settings.security.tls_cert is None else "https"
    shown = f"[{settings.lab.host}]" if ":" in settings.lab.host else settings.lab.host

    def ready(bound: int) -> None:
        print(f"ML Lab on {scheme}://{shown}:{bound}", flush=True)

    try:
        run_lab(settings, ready)
    except OSError as error:
        say_error(
            f"{settings.lab.host}:{settings.lab.port} can't be bound: {error.strerror or error}; stop what has the "
            "port, or set lab.port (0 takes a free one)"
        )
        raise typer.Exit(USAGE if error.errno is None else FAILED) from None
