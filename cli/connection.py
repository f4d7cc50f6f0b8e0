"""How a command reaches the server: its options, over what the configuration says; the one client factory."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from signalserve.cli.exits import USAGE, say_error
from signalserve.cli.options import ConfigOption

if TYPE_CHECKING:
    from signalserve.client import SignalClient
    from signalserve.client.channel import Endpoint
    from signalserve.config.settings import ClientSettings, Settings

_PANEL = "Server"


def _file(option: str, what: str) -> Any:
    return typer.Option(option, help=what, show_default=False, rich_help_panel=_PANEL)


@dataclass(frozen=True)
class Connection:
    """What the options of a command say of its server; None: as the configuration says."""

    config: ConfigOption = None
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            "-t",
            help="Address of the server; the default is client.target.",
            show_default=False,
            rich_help_panel=_PANEL,
        ),
    ] = None
    token_file: Annotated[Path | None, _file("--token-file", "File with the bearer token.")] = None
    tls: Annotated[
        bool | None,
        typer.Option(
            "--tls/--no-tls",
            help="Speak TLS, or not; the default is on where an authority or a certificate is given.",
            show_default=False,
            rich_help_panel=_PANEL,
        ),
    ] = None
    tls_ca: Annotated[
        Path | None, _file("--tls-ca", "PEM file of the authorities to trust; the default is the system's.")
    ] = None
    tls_cert: Annotated[Path | None, _file("--tls-cert", "PEM file of this client's own certificate.")] = None
    tls_key: Annotated[Path | None, _file("--tls-key", "PEM file of its key.")] = None

    def settings(self) -> Settings:
        """The configuration, with what the options say.

        Raises:
            ConfigError: it can't be used.
        """
        from signalserve.config.settings import load_settings  # a command's --help need not wait for it

        settings = load_settings(self.config)
        given = {
            item.name: value
            for item in fields(self)
            if item.name != "config" and (value := getattr(self, item.name)) is not None
        }
        if self.tls is False:
            given |= dict.fromkeys(("tls_ca", "tls_cert", "tls_key", "tls_server_name"))
        return settings.model_copy(update={"client": settings.client.model_copy(update=given)})

    def open(self) -> SignalClient:
        """A client of the server; an address, token or certificate that is none ends the command."""
        return open_client(self.settings().client)


def open_client(settings: ClientSettings) -> SignalClient:
    """A client as the settings say; an address, token or certificate that is none ends the command."""
    from signalserve.client import SignalClient

    try:
        return SignalClient(deadline_ms=settings.deadline_ms, **_reach(settings))
    except (OSError, ValueError) as error:
        raise _refusal(error) from None


def open_endpoint(settings: ClientSettings) -> Endpoint:
    """What `open_client` reaches, for a call that the client does not have."""
    from signalserve.client.channel import endpoint

    try:
        return endpoint(**_reach(settings))
    except (OSError, ValueError) as error:
        raise _refusal(error) from None


def reaches_server(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a `Connection`, and to its parameter `connection` what they say."""
    own = inspect.signature(command, eval_str=True)
    options = inspect.signature(Connection, eval_str=True).parameters
    shared = [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in options.values()]
    kept = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in own.parameters.values()
        if parameter.name != "connection"
    ]

    @wraps(command)
    def run(**given: Any) -> None:
        connection = Connection(**{name: given.pop(name) for name in options})
        command(connection=connection, **given)

    run.__signature__ = own.replace(parameters=[*kept, *shared])  # type: ignore[attr-defined]  # typer reads it
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in (*kept, *shared)}
    return run


def _reach(settings: ClientSettings) -> dict[str, Any]:
    from signalserve.client.tls import tls_files

    return {
        "target": settings.target,
        "token": settings.token_file,
        "tls": tls_files(
            settings.tls_ca,
            settings.tls_cert,
            settings.tls_key,
            settings.tls_server_name,
            always=settings.tls,
        ),
        "insecure": settings.insecure,
    }


def _refusal(error: Exception) -> typer.Exit:
    if isinstance(error, OSError) and error.filename:
        say_error(f"{error.filename} can't be read: {error.strerror}")
    else:
        # the words of the command line for what the library calls its arguments
        say_error(
            str(error).replace("give tls, or insecure=True", "give --tls-ca, or set client.insecure: true")
        )
    return typer.Exit(USAGE)
