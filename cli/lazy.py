"""Commands that are imported when they are used: `signalserve --help` waits for none of them.

Until then a command is its name and where it is written. Its line in the help is its docstring's, read from the
source; so it is written once, and nothing is run to show it.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.abc import InspectLoader
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import typer
from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    from typer._click import Command, Context

MARKUP: Literal["markdown"] = "markdown"
"""Joins the lines of a docstring's paragraph, which are wrapped for the source."""


@dataclass(frozen=True)
class Origin:
    """Where a command is written: a function, or for a group a function that makes the group."""

    module: str
    function: str
    group: bool = False

    def help(self) -> str:
        """Return the function's docstring without importing the module; "" where its source is not there."""
        return _docstrings(self.module).get(self.function, "")

    def load(self, name: str) -> Command:
        """Import the module and make the command."""
        function: Callable[..., Any] = getattr(import_module(self.module), self.function)
        app = typer.Typer(rich_markup_mode=MARKUP, pretty_exceptions_enable=False, add_completion=False)
        if self.group:
            app.add_typer(function(), name=name)
        else:
            app.command(name)(function)
        app.callback()(lambda: None)  # without one a lone command would be no member of a group
        made = typer.main.get_command(app)
        if not isinstance(made, TyperGroup):
            raise TypeError(f"{name} is in no group")
        return made.commands[name]


@cache
def _docstrings(module: str) -> dict[str, str]:
    spec = find_spec(module)
    loader = spec.loader if spec is not None else None
    source = loader.get_source(module) if isinstance(loader, InspectLoader) else None
    return {
        node.name: ast.get_docstring(node) or ""
        for node in ast.parse(source or "").body
        if isinstance(node, ast.FunctionDef)
    }


class NotLoaded(TyperCommand):
    """The place of a command that was not imported yet."""

    def __init__(self, name: str, origin: Origin) -> None:
        super().__init__(name)
        self.origin = origin


class LazyGroup(TyperGroup):
    """A group that knows its commands by `origins` and imports the one that is run.

    `prepare` is called before a command's own code, and not for its help.
    """

    origins: ClassVar[Mapping[str, Origin]] = {}

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, origin in self.origins.items():
            self.commands[name] = NotLoaded(name, origin)

    def prepare(self) -> None:
        """Do what every command needs; nothing by itself."""

    def resolve_command(self, ctx: Context, args: list[str]) -> tuple[str | None, Command | None, list[str]]:
        """Return the command that the arguments name, imported."""
        name, command, rest = super().resolve_command(ctx, args)
        if isinstance(command, NotLoaded) and name is not None:
            command = self.commands[name] = self._prepared(command.origin.load(name))
        return name, command, rest

    def format_help(self, ctx: Context, formatter: Any) -> None:
        """Write the help, with a line for each command."""
        for command in self.commands.values():
            if isinstance(command, NotLoaded):
                command.help = command.origin.help()
        super().format_help(ctx, formatter)

    def _prepared(self, command: Command) -> Command:
        if isinstance(command, TyperGroup):
            for name, member in command.commands.items():
                command.commands[name] = self._prepared(member)
        elif (run := command.callback) is not None:

            def prepared(*args: Any, **options: Any) -> Any:
                self.prepare()
                return run(*args, **options)

            command.callback = prepared
        return command
