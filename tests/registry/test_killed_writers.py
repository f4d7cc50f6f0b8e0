"""A writer that is killed at any instant leaves a registry that opens, with the old state or the new.

`SIGNALSERVE_TEST_KILLS=1000` kills so many.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest

from signalserve.registry import Promotion, list_models, verify_log
from signalserve.registry.errors import CallerError
from signalserve.registry.folder_store import FolderStore
from tests.registries import registry_at
from tests.small_models import register_copy, sealed_template

KILLS = int(os.environ.get("SIGNALSERVE_TEST_KILLS", "40"))


def write_for_ever(template: Path, base: Path, round_number: int) -> None:
    """Register, promote, roll back and prune, one after the other, until killed."""
    dice = random.Random(round_number)
    number = 0
    while True:
        number += 1
        model_id = f"BTCUSDT_15m_logreg_{round_number}_{number}"
        try:
            register_copy(template, base, model_id, max_models=dice.choice([3, 5]))
            registry_at(base).promote([Promotion(model_id)], reason="test")
            if dice.random() < 0.4:
                registry_at(base).rollback([("BTCUSDT", "15m")], reason="test")
            if dice.random() < 0.2:
                registry_at(base).make_candidate(f"BTCUSDT_15m_logreg_{round_number}_{number - 1}")
            if dice.random() < 0.2:
                registry_at(base).archive([model_id], reason="test", allow_unserved=True)
        except CallerError:
            continue


@pytest.mark.filterwarnings(
    "ignore:This process.*multi-threaded:DeprecationWarning"
)  # the child only writes files
def test_kills_leave_a_registry_that_opens_and_a_log_that_verifies(tmp_path: Path) -> None:
    base, template = tmp_path / "registry", sealed_template(tmp_path / "template")
    register_copy(template, base, "BTCUSDT_15m_logreg_first")
    dice = random.Random(0)
    committed, log = 1, base / "registry_events.jsonl"
    for round_number in range(KILLS):
        size = log.stat().st_size
        child = os.fork()
        if child == 0:
            try:
                write_for_ever(template, base, round_number)
            finally:
                os._exit(1)
        if round_number % 3 == 0:  # a busy machine may not come to a change before
            give_up = time.monotonic() + 30
            while log.stat().st_size == size and time.monotonic() < give_up:
                time.sleep(0.001)
        time.sleep(dice.uniform(0.0, 0.12))  # the instant of the kill, not a synchronisation
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        report = verify_log(base)
        assert report.ok, (round_number, report.problems)
        assert report.events >= committed
        committed = report.events
        view = FolderStore(base).view()
        assert view.state.revision == report.events
        assert not view.edited_outside
        assert not view.unreadable
    # the next writer mends whatever the last kill left
    register_copy(template, base, "BTCUSDT_15m_logreg_last")
    report = verify_log(base)
    assert report.ok
    assert not report.notes
    assert committed > KILLS / 4
    productions = [entry for entry in list_models(base) if entry.status == "production"]
    assert len(productions) <= 1


def test_a_torn_last_line_was_never_committed_and_the_next_writer_drops_it(tmp_path: Path) -> None:
    base, template = tmp_path / "registry", sealed_template(tmp_path / "template")
    register_copy(template, base, "first")
    log = base / "registry_events.jsonl"
    whole = log.read_bytes()
    for cut in (1, len(whole) // 2, len(whole) - 1):
        log.write_bytes(whole + whole[:cut].replace(b"\n", b""))
        assert FolderStore(base).view().state.revision == 1
        report = verify_log(base)
        assert report.ok
        assert "torn" in report.notes[0]
    register_copy(template, base, "second")
    assert [json.loads(line)["revision"] for line in log.read_bytes().splitlines()] == [1, 2]
