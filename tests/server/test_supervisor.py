"""A worker that died is started again, whatever another one waits for."""

from __future__ import annotations

import os
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from signalserve.server.workers import READY, Supervisor

FOLDER = "SUPERVISOR_TEST_FOLDER"


def run_worker(number: int, connection: Connection) -> None:
    """Worker 0 dies at once; worker 1 dies once, and when it was started again ends them all."""
    if number == 0:
        (Path(os.environ[FOLDER]) / "0").touch()
        sys.exit(7)
    connection.send(READY)
    while not (Path(os.environ[FOLDER]) / "0").exists():
        pass
    died = Path(os.environ[FOLDER]) / "1"
    if not died.exists():
        died.touch()
        sys.exit(7)
    os.kill(os.getppid(), signal.SIGTERM)
    signal.sigwait({signal.SIGTERM})


def test_a_dead_worker_does_not_wait_behind_the_pause_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    supervisor = Supervisor(run_worker, 2, lambda: None, silence_seconds=60.0)
    supervisor._pauses = {0: 3600.0}  # as after many deaths
    try:
        supervisor.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert (tmp_path / "1").exists()
