"""The lab as its own process, or as two workers on one port: it answers, and ends at once though a page listens."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import yaml

from tests.lab.conftest import free_target

PROGRAM = """
import sys
from pathlib import Path
from signalserve.config.settings import load_settings
from signalserve.lab.app import run_lab

if __name__ == "__main__":
    run_lab(load_settings(Path(sys.argv[1])), lambda port: print(port, flush=True))
"""
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("workers", [1, 2])
def test_it_answers_and_ends_by_itself_though_a_page_listens(
    base: Path, tmp_path: Path, workers: int
) -> None:
    program, config = tmp_path / "program.py", tmp_path / "system.yml"
    program.write_text(PROGRAM)
    sections = {
        "ml": {"models_dir": str(base)},
        "live": {"snapshot_dir": str(tmp_path / "live")},
        "lab": {"port": 0, "workers": workers},
        "client": {"target": free_target()},
    }
    config.write_text(yaml.safe_dump(sections))
    process = subprocess.Popen(
        [sys.executable, str(program), str(config)],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process, httpx.Client(timeout=60.0) as http:
        address = f"http://127.0.0.1:{int(process.stdout.readline())}"
        try:
            answer = http.get(f"{address}/api/ml/models")
            assert (answer.json()["total"], "server" in answer.headers) == (3, False)
            with http.stream("GET", f"{address}/api/ml/stream") as stream:
                lines = stream.iter_lines()
                assert next(lines) == "retry: 2000"
                process.send_signal(signal.SIGTERM)
                assert "event: hello" in list(lines)
            assert process.wait(timeout=60) == 0
        finally:
            if process.poll() is None:
                process.kill()
