"""Writers are killed at any instant while people and programs work on the index: production is nobody else's to decide.

`SIGNALSERVE_TEST_KILLS=1000` kills so many writers.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from signalserve.common.key import Key
from signalserve.registry import Promotion, verify_log
from signalserve.registry.events import Action, EventLog
from signalserve.registry.folder_store import FolderStore
from tests.registries import registry_at
from tests.registry.test_killed_writers import write_for_ever
from tests.small_models import register_copy, sealed_template

KILLS = int(os.environ.get("SIGNALSERVE_TEST_KILLS", "30"))
KEY = Key("BTCUSDT", "15m")


def edit_for_ever(index: Path, seed: int) -> None:
    """Save an old copy, change a cell, or cut the file off, in place, without any lock."""
    dice = random.Random(seed)
    copies: list[bytes] = []
    while True:
        # a pause, in which the file rests: while it moves, writers wait
        time.sleep(dice.uniform(0.0, 0.8))
        try:
            content = index.read_bytes()
        except FileNotFoundError:
            continue
        copies.append(content)
        what = dice.choice(["old copy", "cell", "cut off"])
        if what == "old copy":
            content = dice.choice(copies)
        elif what == "cut off":
            content = content[: dice.randrange(len(content) + 1)]
        else:
            header, *rows = content.decode(errors="surrogateescape").splitlines(keepends=True)
            if rows and len(cells := rows[0].split(",")) == 9:
                cells[7] = f"{dice.random():.3f}"
                content = (header + ",".join(cells) + "".join(rows[1:])).encode(errors="surrogateescape")
        with suppress(OSError):  # a full disk cuts it off, too
            index.write_bytes(content)


def forked(work: object, *arguments: object) -> int:
    child = os.fork()
    if child == 0:
        try:
            work(*arguments)  # type: ignore[operator]
        finally:
            os._exit(1)
    return child


def end(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def first_in_production(template: Path, base: Path) -> None:
    register_copy(template, base, "BTCUSDT_15m_logreg_first")
    registry_at(base).promote([Promotion("BTCUSDT_15m_logreg_first")])


def kill_writers(write: Callable[[Path, Path, int], None], template: Path, base: Path, kills: int) -> None:
    """Kill so many writers, one after the other, and see after each what stands."""
    dice = random.Random(0)
    committed = 2
    for round_number in range(kills):
        writer = forked(write, template, base, round_number)
        time.sleep(dice.uniform(0.0, 0.5))  # the instant of the kill, not a synchronisation
        end(writer)
        events = EventLog(base / "registry_events.jsonl").read_new().events
        assert len(events) >= committed
        committed = len(events)
        view = FolderStore(base).view()
        assert view.state.unconfirmed() == {}, round_number
        assert view.state.by_hand == {}, round_number


def assert_that_nobody_else_decided(template: Path, base: Path, *seen: Action) -> None:
    """The next writer mends whatever was left, and no event but a decision has moved production.

    `seen` are actions that were, at the least.
    """
    register_copy(template, base, "BTCUSDT_15m_logreg_last")
    assert verify_log(base).ok
    events = EventLog(base / "registry_events.jsonl").read_new().events
    assert set(seen) <= {event.action for event in events}
    for event in events:
        if event.action == Action.EXTERNAL_EDIT:
            assert [change for change in event.changes if "production" in (change.before, change.after)] == []


@pytest.mark.filterwarnings(
    "ignore:This process.*multi-threaded:DeprecationWarning"
)  # the children only write files
def test_kills_beside_editors_leave_a_log_that_verifies_and_no_production_that_nobody_decided(
    tmp_path: Path,
) -> None:
    base, template = tmp_path / "registry", sealed_template(tmp_path / "template")
    first_in_production(template, base)
    editor = forked(edit_for_ever, base / "registry_index.csv", 1)
    try:
        kill_writers(write_for_ever, template, base, KILLS)
    finally:
        end(editor)
    assert_that_nobody_else_decided(template, base, Action.EXTERNAL_EDIT, Action.PROMOTE, Action.ROLLBACK)
