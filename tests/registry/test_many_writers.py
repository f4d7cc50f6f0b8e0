"""Eight processes write at once; no row and no event is lost."""

from __future__ import annotations

import multiprocessing
import threading
from pathlib import Path

from signalserve.registry import Promotion, load_registry, verify_log
from signalserve.registry.events import EventLog
from signalserve.registry.folder_store import FolderStore, open_store
from signalserve.registry.store import Origin
from tests.registries import registry_at
from tests.small_models import register_copy, sealed_template

PROCESSES, EACH = 8, 12


def write(template: Path, base: Path, number: int) -> None:
    """Register and promote, six times each, on a key that two processes share."""
    for turn in range(EACH // 2):
        model_id = f"model_{number}_{turn}"
        register_copy(template, base, model_id, symbol=f"SYMBOL{number // 2}")
        registry_at(base).promote([Promotion(model_id)], reason="test", request_id=f"{number}-{turn}")


def test_eight_processes_lose_no_row_and_no_event(tmp_path: Path) -> None:
    base, template = tmp_path / "registry", sealed_template(tmp_path / "template")
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=write, args=(template, base, number)) for number in range(PROCESSES)]
    for process in processes:
        process.start()
    reader = FolderStore(base)
    reader.make()
    last = 0
    while any(process.is_alive() for process in processes):
        view = reader.view()
        assert view.state.revision >= last
        assert not view.edited_outside
        assert len(view.state.productions()) <= PROCESSES // 2
        last = view.state.revision
    for process in processes:
        process.join()
        assert process.exitcode == 0
    report = verify_log(base)
    assert report.ok
    assert report.events == PROCESSES * EACH
    assert {entry.model_id for entry in load_registry(base)} == {
        f"model_{number}_{turn}" for number in range(PROCESSES) for turn in range(EACH // 2)
    }
    events = EventLog(base / "registry_events.jsonl").read_new().events
    assert sum(event.action == "register" for event in events) == PROCESSES * EACH // 2
    assert sum(event.action == "promote" for event in events) == PROCESSES * EACH // 2


def test_a_reader_does_not_wait_for_a_writer_of_its_own_process(tmp_path: Path) -> None:
    base, template = tmp_path / "registry", sealed_template(tmp_path / "template")
    register_copy(template, base, "m")
    store = open_store(base)
    seen: list[int] = []
    with store.transaction(Origin(reason="a long turn")):
        reader = threading.Thread(target=lambda: seen.append(store.view().state.revision))
        reader.start()
        reader.join(30)
        assert seen == [1]
