"""The `signalserve` command."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from signalserve.cli import (
    backtest,
    demo,
    evaluate,
    health,
    lifecycle,
    live,
    predict,
    registry,
    retrain,
    serve,
    train,
)
from signalserve.cli.exits import EPILOG, telling_exits
from signalserve.config.logs import configure_logs
from signalserve.config.settings import LoggingSettings

app = typer.Typer(
    name="signalserve",
    help="The whole life of a trading model: train, register, promote, serve over gRPC, roll back.",
    epilog=EPILOG,
    no_args_is_help=True,
    # joins the lines of a docstring's paragraph, which are wrapped for the source
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_enable=False,
)
for group in (serve, train, evaluate, backtest, retrain, lifecycle, predict, live, registry, health, demo):
    group.register(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"signalserve {version('signalserve')}")
        raise typer.Exit


@app.callback()
def root(
    _version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and end.", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    """The whole life of a trading model: train, register, promote, serve over gRPC, roll back."""
    # a command that reads the configuration may say otherwise; stdout belongs to the command's answer
    configure_logs(LoggingSettings(level="warning"))


def main() -> None:
    """Run the command line."""
    with telling_exits():
        app()


if __name__ == "__main__":
    main()
