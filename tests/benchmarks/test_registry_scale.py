"""The scale table is measured on registries that are whole: one that no real log looks like would prove nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.long_log import LongLog, Scale
from benchmarks.registry import LINES
from signalserve.cli.main import app
from signalserve.common.files import sha256_hex
from signalserve.registry import open_registry
from signalserve.registry.state import RegistryState

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("scale", [Scale(300, 300), Scale(2000, 400)])
def test_a_log_of_any_size_verifies_and_every_event_names_its_index(tmp_path: Path, scale: Scale) -> None:
    base = tmp_path / "models"
    LongLog(scale).write(base)
    answer = CliRunner().invoke(app, ["registry", "verify-log", "--registry", str(base), "--json"])
    assert answer.exit_code == 0, answer.output
    assert json.loads(answer.output)["events"] == scale.events
    registry = open_registry(base)
    assert len(registry.state.entries) == scale.entries
    assert len(registry.state.productions()) == (0 if scale.is_fresh else scale.keys)
    state = RegistryState()
    for event in registry.events():
        state.apply(event)
        assert sha256_hex(state.render()) == event.index_sha256, event.revision


def test_the_table_has_a_line_for_every_cost_and_says_which_targets_hold() -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "benchmarks.registry", "--events", "80", "600", "--entries", "20", "60"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    for line in LINES:
        (said,) = (said for said in answer.stdout.splitlines() if f"  {line.what}: " in said)
        assert said.startswith(("holds ", "MISSED ")) == (line.target is not None)
