"""Worker processes: each job has one outcome, a dead worker costs one retry, and a stop leaves nobody behind.

The jobs here are Python expressions and the work is `eval`, so that a worker needs nothing of the tests.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from signalserve.config.evidence import RetrainSettings
from signalserve.training.backends import BackendError, Inbox, Outcome
from signalserve.training.local_backend import LocalBackend
from signalserve.training.retrain import build_backend


def run(jobs: Sequence[str], processes: int = 2) -> dict[str, Outcome[object]]:
    outcomes = list(LocalBackend(processes).run(jobs, eval, Inbox()))
    assert len(outcomes) == len(jobs), "one outcome a job"
    assert psutil.Process().children() == [] or only_the_tracker()
    return dict(outcomes)


def only_the_tracker() -> bool:
    return all("resource_tracker" in " ".join(child.cmdline()) for child in psutil.Process().children())


def script(folder: Path, text: str) -> str:
    """An expression that runs a script."""
    path = folder / "job.py"
    path.write_text(text, encoding="utf-8")
    return f"__import__('runpy').run_path({str(path)!r}, {{'folder': {str(folder)!r}}}) and 'ran'"


def test_every_job_has_its_outcome_and_a_failure_is_its_own() -> None:
    outcomes = run(["1 + 1", "1 / 0", "'three'", "open('/absent')"])
    assert outcomes["1 + 1"] == Outcome(2)
    assert outcomes["'three'"] == Outcome("three")
    assert outcomes["1 / 0"].error == "ZeroDivisionError: division by zero"
    assert outcomes["open('/absent')"].error.startswith("FileNotFoundError")


def test_a_worker_that_dies_costs_its_job_one_more_try_and_others_nothing(tmp_path: Path) -> None:
    once = script(
        tmp_path,
        "import os, pathlib\n"
        "seen = pathlib.Path(folder, 'seen')\n"
        "if not seen.exists():\n"
        "    seen.touch()\n"
        "    os._exit(9)\n",
    )
    always = "__import__('os')._exit(9)"
    outcomes = run([once, always, "1", "2", "3"])
    assert outcomes[once] == Outcome("ran")
    assert "died 2 times" in outcomes[always].error
    assert [outcomes[job].value for job in ("1", "2", "3")] == [1, 2, 3]


def test_workers_compute_on_one_thread_and_leave_ctrl_c_to_their_parent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    threads = "[__import__('os').environ[n + '_NUM_THREADS'] for n in ('OMP', 'MKL', 'OPENBLAS')]"
    blocked = "__import__('signal').SIGINT in __import__('signal').pthread_sigmask(0, [])"
    outcomes = run([threads, blocked])
    assert outcomes[threads].value == ["1", "1", "1"]
    assert outcomes[blocked].value is True
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_one_process_runs_one_job_after_the_other() -> None:
    pid = "__import__('os').getpid()"
    jobs = [f"({number}, {pid})" for number in range(3)]
    values = [outcome.value for outcome in run(jobs, processes=1).values()]
    assert len({worker for _, worker in values}) == 1  # type: ignore[misc]


BLOCKED = (
    "import os, pathlib\n"
    "try:\n"
    "    open(os.path.join(folder, 'gate')).read()\n"
    "finally:\n"
    "    pathlib.Path(folder, 'cleared').touch()\n"
)


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A pipe on which a job waits: who has opened its other end knows that the job is in mid-run."""
    path = tmp_path / "gate"
    os.mkfifo(path)
    return path


def test_a_stop_interrupts_what_runs_and_starts_nothing_more(tmp_path: Path, gate: Path) -> None:
    inbox = Inbox()
    held: list[int] = []

    def stop_in_mid_run() -> None:
        held.append(os.open(gate, os.O_WRONLY))
        inbox.stop()

    watcher = threading.Thread(target=stop_in_mid_run)
    watcher.start()
    blocked = script(tmp_path, BLOCKED)
    later = f"open({str(tmp_path / 'later')!r}, 'w').close()"
    outcomes = dict(LocalBackend(1).run([blocked, later], eval, inbox))
    watcher.join()
    os.close(held[0])
    assert outcomes == {blocked: Outcome(interrupted=True), later: Outcome(interrupted=True)}
    assert (tmp_path / "cleared").exists(), "the job could clear up"
    assert not (tmp_path / "later").exists()
    assert only_the_tracker()


def test_a_caller_that_loses_interest_leaves_no_worker(tmp_path: Path, gate: Path) -> None:
    outcomes = LocalBackend(2).run(["1", script(tmp_path, BLOCKED)], eval, Inbox())
    assert next(outcomes) == ("1", Outcome(1))
    with gate.open("w"):
        outcomes.close()
    assert (tmp_path / "cleared").exists()
    assert only_the_tracker()


def test_workers_do_not_outlive_a_parent_that_is_killed(tmp_path: Path, gate: Path) -> None:
    blocked = script(tmp_path, BLOCKED)
    code = (
        "from signalserve.training.backends import Inbox\n"
        "from signalserve.training.local_backend import LocalBackend\n"
        f"list(LocalBackend(1).run([{blocked!r}], eval, Inbox()))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    with gate.open("w"):  # opens when the worker has opened it too
        family = psutil.Process(parent.pid).children(recursive=True)
        parent.kill()
        parent.wait()
        _, alive = psutil.wait_procs(family, timeout=60)
    assert family
    assert alive == []
    assert (tmp_path / "cleared").exists()


def test_an_inbox_wakes_who_sleeps() -> None:
    inbox = Inbox()
    inbox.sleep(0.0)
    assert not inbox.stopped
    threading.Thread(target=inbox.stop).start()
    inbox.sleep(3600.0)
    assert inbox.stopped


def test_ray_that_is_not_installed_is_said_with_the_extra_that_brings_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BackendError, match=r"signalserve\[cluster\]"):
        build_backend(RetrainSettings(backend="ray"))
