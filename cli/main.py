"""The `signalserve` command."""

from __future__ import annotations

import os
from typing import Annotated, ClassVar

import typer

from signalserve import __version__
from signalserve.cli.exits import EPILOG, telling_exits
from signalserve.cli.lazy import MARKUP, LazyGroup, Origin


def _in(module: str, function: str, *, group: bool = False) -> Origin:
    return Origin(f"signalserve.cli.{module}", function, group)


class Commands(LazyGroup):
    """All commands, in the order of the help."""

    origins: ClassVar = {
        "serve": _in("serve", "serve"),
        "train": _in("train", "train"),
        "evaluate": _in("evaluate", "evaluate"),
        "backtest": _in("backtest", "backtest"),
        "retrain": _in("retrain", "retrain"),
        "models": _in("lifecycle", "models"),
        "promote": _in("lifecycle", "promote"),
        "rollback": _in("lifecycle", "rollback"),
        "archive": _in("lifecycle", "archive"),
        "events": _in("lifecycle", "events"),
        "status": _in("lifecycle", "status"),
        "predict": _in("predict", "predict"),
        "live": _in("live", "live"),
        "lab": _in("lab", "lab"),
        "health": _in("health", "health"),
        "demo": _in("demo", "demo"),
        "token": _in("token", "group", group=True),
        "access": _in("access", "access"),
        "registry": _in("registry", "group", group=True),
    }

    def prepare(self) -> None:
        """Keep stdout for the command's answer; one that reads the configuration may say otherwise."""
        from signalserve.config.logs import configure_logs
        from signalserve.config.settings import LoggingSettings

        configure_logs(LoggingSettings(level="warning"))


app = typer.Typer(
    name="signalserve",
    cls=Commands,
    help="The whole life of a trading model: train, register, promote, serve over gRPC, roll back.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode=MARKUP,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"signalserve {__version__}")
        raise typer.Exit


@app.callback()
def root(
    _version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and end.", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    """The whole life of a trading model: train, register, promote, serve over gRPC, roll back."""


def main() -> None:
    """Run the command line."""
    # gRPC's own lines say what the command says, less clearly, and a line for each attempt
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    with telling_exits():
        app()


if __name__ == "__main__":
    main()
