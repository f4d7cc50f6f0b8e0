"""Ctrl-C in mid-training, on a real process behind a real terminal: exit code 130 and nothing left behind."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import yaml

from signalserve.training.interrupts import uninterrupted
from tests.training.conftest import CONFIG

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0


def default_sigint() -> None:
    """A parent may have ignored it, and a child inherits that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def training(tmp_path: Path, bars: Path, *more: str) -> Iterator[tuple[subprocess.Popen[bytes], int, Path]]:
    """`signalserve train` of forests that take minutes, in a session of its own; its stderr is a terminal."""
    ml = {**CONFIG["ml"], "models": {"rf": {"n_estimators": 20_000}}, "grid_jobs": 2}
    # the first candidate is done in a moment, so workers are seen at work
    ml |= {"grids": {"rf": {"n_estimators": [3, 20_000, 20_001]}}}
    config, base = tmp_path / "slow.yml", tmp_path / "models"
    config.write_text(yaml.safe_dump({**CONFIG, "ml": ml}), encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "signalserve.cli.main",
        "train",
        "--symbol",
        "SYNTH",
        "--config",
        str(config),
    ]
    command += ["--ohlcv", str(bars), "--output-dir", str(base), *more]
    terminal, end = pty.openpty()
    environment = {**os.environ, "COLUMNS": "200", "TERM": "xterm"}
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=end,
        start_new_session=True,
        preexec_fn=default_sigint,
    )
    os.close(end)
    try:
        yield process, terminal, base
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        os.close(terminal)


def read_until(terminal: int, text: str) -> str:
    """What the terminal shows until it shows `text`."""
    shown = b""
    while text.encode() not in shown:
        ready, _, _ = select.select([terminal], [], [], PATIENCE)
        assert ready, f"waited for {text!r}, saw {shown.decode()!r}"
        shown += os.read(terminal, 65536)
    return shown.decode(errors="replace")


def ends(process: subprocess.Popen[bytes], terminal: int) -> tuple[int, str]:
    """The exit code, and what the terminal showed to the end."""
    shown: list[bytes] = []

    def drain() -> None:
        try:
            while chunk := os.read(terminal, 65536):
                shown.append(chunk)
        except OSError:  # the other end is closed: the process and its children are gone
            return

    reader = threading.Thread(target=drain)
    reader.start()
    code = process.wait(timeout=PATIENCE)
    reader.join(timeout=PATIENCE)
    assert not reader.is_alive(), "somebody still holds the terminal"
    return code, b"".join(shown).decode(errors="replace")


def session(leader: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


@pytest.mark.parametrize(
    ("more", "stage"), [([], "fold 1/2"), (["--grid"], "best sharpe")], ids=["folds", "grid"]
)
def test_an_interrupt_exits_130_and_leaves_no_folder_no_event_and_no_process(
    tmp_path: Path, bar_file: Path, more: list[str], stage: str
) -> None:
    with training(tmp_path, bar_file, *more) as (process, terminal, base):
        read_until(terminal, stage)
        assert list(base.glob(".building-SYNTH_15m_rf_*"))
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: everyone in the foreground gets it
        code, shown = ends(process, terminal)
        assert code == 130, shown
        assert "Traceback" not in shown
        psutil.wait_procs(session(process.pid), timeout=PATIENCE)
        assert session(process.pid) == []
    assert [path.name for path in base.iterdir() if path.is_dir()] == []
    assert not list(base.glob("rf_grid_results_*"))
    assert not (base / "registry_events.jsonl").exists()


def test_what_must_not_be_cut_in_two_is_finished_before_an_interrupt_counts() -> None:
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        done.append("the rest")
    assert done == ["the rest"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_signals_that_are_ignored_stay_ignored_and_other_threads_are_left_alone() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    entered: list[bool] = []

    def other() -> None:
        with uninterrupted():
            entered.append(True)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert entered == [True]
