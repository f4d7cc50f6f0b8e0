"""Options that several commands share, and the settings behind them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from client import SignalClient
from config.settings import Settings, load_settings

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", help="Configuration file; the default is config/system.yml.", show_default=False
    ),
]
TargetOption = Annotated[
    str | None,
    typer.Option(
        "--target", "-t", help="Address of the server; the default is client.target.", show_default=False
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
RegistryOption = Annotated[
    Path | None,
    typer.Option(
        "--registry", "-r", help="Registry folder; the default is ml.models_dir.", show_default=False
    ),
]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; it is kept in the audit log.")]


def open_client(config: Path | None, target: str | None) -> SignalClient:
    """A client of the server that the options or the configuration name."""
    settings = load_settings(config)
    return SignalClient(target or settings.client.target)


def registry_dir(settings: Settings, registry: Path | None) -> Path:
    """The registry folder that the options or the configuration name."""
    return registry if registry is not None else settings.ml.models_dir
