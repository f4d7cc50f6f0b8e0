"""The command's help: what it says, and that nothing is imported to say it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from signalserve.cli.main import Commands, app
from tests.server.conftest import ROOT

HEAVY = {"grpc", "numpy", "pandas", "pydantic", "sklearn", "onnxruntime", "structlog", "yaml"}
NAMES = list(Commands.origins)


def loaded(*arguments: str) -> tuple[str, set[str]]:
    """Run the command in a process of its own; gives what it printed and the modules that it has loaded."""
    program = (
        "import json, sys\n"
        f"sys.argv = ['signalserve', *{list(arguments)!r}]\n"
        "from signalserve.cli.__main__ import main\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    print(json.dumps(list(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=60, check=True
    )
    return done.stdout, set(json.loads(done.stderr))


def test_the_help_lists_every_command_and_imports_none() -> None:
    printed, modules = loaded("--help")
    assert not modules & HEAVY
    ours = {name for name in modules if name.startswith("signalserve.cli.")}
    assert ours == {f"signalserve.cli.{name}" for name in ("__main__", "main", "exits", "lazy")}
    listed = [line.split()[1] for line in printed.split("Commands")[1].splitlines() if line.startswith("│ ")]
    assert [word for word in listed if word in NAMES] == NAMES


@pytest.mark.parametrize("command", ["status", "predict", "promote", "health", "serve", "train"])
def test_the_help_of_a_command_waits_for_nothing_that_only_its_work_needs(command: str) -> None:
    _, modules = loaded(command, "--help")
    assert not modules & (HEAVY - {"pydantic"})  # which typer itself takes, to convert the group's options
    assert not {"signalserve.client", "signalserve.registry", "signalserve.server"} & modules


@pytest.mark.parametrize("name", NAMES)
def test_the_line_in_the_help_is_that_of_the_command_itself(name: str) -> None:
    origin = Commands.origins[name]
    command = origin.load(name)
    assert command.name == name
    assert origin.help()
    assert command.help == origin.help()


@pytest.mark.parametrize(
    ("typed", "meant"), [(("statu",), "status"), (("regisry",), "registry"), (("registry", "claen"), "clean")]
)
def test_a_slip_of_the_pen_is_told_what_was_meant(typed: tuple[str, ...], meant: str) -> None:
    answer = CliRunner().invoke(app, typed)
    assert answer.exit_code == 2
    assert f"No such command '{typed[-1]}'. Did you mean '{meant}'?" in answer.stderr


def test_logs_are_set_up_for_a_command_and_not_for_its_help(monkeypatch: pytest.MonkeyPatch) -> None:
    levels = []
    monkeypatch.setattr(
        "signalserve.config.logs.configure_logs", lambda settings: levels.append(settings.level)
    )
    for command in (("status",), ("registry",), ("registry", "validate")):
        assert CliRunner().invoke(app, [*command, "--help"]).exit_code == 0
    assert levels == []
    assert CliRunner().invoke(app, ["registry", "validate", "--registry", "/nowhere"]).exit_code == 2
    assert CliRunner().invoke(app, ["health", "--target", "127.0.0.1:70000"]).exit_code == 2
    assert levels == ["warning", "warning"]
