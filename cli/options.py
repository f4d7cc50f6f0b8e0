"""Options that several commands share, and the settings behind them."""

from __future__ import annotations

import shlex
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from signalserve.cli.exits import USAGE, say_error
from signalserve.cli.output import remark
from signalserve.common.moments import parse_moment

if TYPE_CHECKING:
    from signalserve.config.settings import Settings

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", help="Configuration file; the default is config/system.yml.", show_default=False
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


def time_option(text: str) -> Any:
    """An option that takes a time as people and pandas write it; without a zone it is UTC."""
    return typer.Option(help=text, parser=_moment, metavar="TIME", show_default=False)


def _moment(text: str) -> datetime:
    try:
        return parse_moment(text.strip())
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no time; write 2024-06-30, 2024-06-30T12:00 or '2024-06-30 12:00:00+00:00'"
        ) from None


def existing_registry(settings: Settings, registry: Path | None) -> Path:
    """The registry folder, for a command that has nothing to do where there is none."""
    from signalserve.registry import open_registry
    from signalserve.registry.errors import RegistryMissingError

    base = registry if registry is not None else settings.ml.models_dir
    refuse_file(base, "the registry is a folder")
    if not base.is_dir():
        say_error(f"{base} does not exist; --registry names the registry's folder")
        raise typer.Exit(USAGE)
    try:
        open_registry(base).store.check()
    except RegistryMissingError as error:
        say_error(f"{error}; --registry names the registry's folder")
        raise typer.Exit(USAGE) from None
    return base


def refuse_file(folder: Path, what: str) -> None:
    """End the command where a folder is meant and a file was named."""
    if folder.exists() and not folder.is_dir():
        say_error(f"{folder} is a file; {what}")
        raise typer.Exit(USAGE)


def warn_of_another_key(settings: Settings, path: Path, symbol: str, timeframe: str) -> None:
    """Say so where a bar file's name speaks of another symbol or timeframe than it is taken for."""
    from signalserve.training.plan import named_otherwise

    warning = named_otherwise(str(settings.data.ohlcv_path), path, symbol, timeframe)
    if warning:
        remark("note:", warning)


def repeated(**options: object) -> str:
    """Options as the next command needs them again; those that were not given are left out."""
    texts = [f" --{name} {shlex.quote(str(value))}" for name, value in options.items() if value is not None]
    return "".join(texts)
