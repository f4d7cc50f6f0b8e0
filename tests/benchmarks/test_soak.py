"""A short soak, from the command to its table: every kind of load, and a fault of each kind, and everything holds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHORT = ["load hangs", "worker killed", "registry away", "file spoilt", "worker drained"]


def test_a_short_soak_loses_no_prediction_and_sees_each_fault_said_and_gone(tmp_path: Path) -> None:
    answer = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.soak", "--seconds", "1", "--keys", "8", "--quiet", "0.2"),
            *("--keep", str(tmp_path), "--only", *SHORT),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=220,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert answer.stdout.endswith("everything held\n")
    rows = [line.split(" | ") for line in answer.stdout.splitlines() if line.startswith("| ")][1:]
    assert [row[0].removeprefix("| ") for row in rows] == SHORT
    for row in rows:
        asked, failed, wrong = (int(row[place].replace(",", "").rstrip(" |")) for place in (5, 6, 9))
        assert asked > 0
        assert (failed, wrong) == (0, 0)


@pytest.mark.parametrize("arguments", [["--only", "no such fault"]])
def test_a_fault_that_is_not_there_is_refused(arguments: list[str]) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "benchmarks.soak", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 2
    assert "worker killed" in answer.stderr
