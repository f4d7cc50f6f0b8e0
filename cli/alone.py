"""One command as a program of its own, as `scripts/` has them."""

from __future__ import annotations

from collections.abc import Callable

import typer

from signalserve.cli.exits import telling_exits


def run_alone(command: Callable[..., None]) -> None:
    """Run a command by the process's arguments."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")
    app.command()(command)
    with telling_exits():
        app()
