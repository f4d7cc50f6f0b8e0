"""The runbook of docs/registry.md: its commands for backup and restore beside writers, and a folder that was moved."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

from signalserve.common.key import Key
from signalserve.registry import Promotion, load_model_by_id, verify_log
from signalserve.registry.folder_store import FolderStore
from tests.registries import registry_at
from tests.small_models import register_copy, sealed_template

KEY = Key("BTCUSDT", "15m")
TEXT = (Path(__file__).resolve().parents[2] / "docs" / "registry.md").read_text(encoding="utf-8")


def commands(title: str) -> str:
    """The first commands below a title of the runbook."""
    _, _, below = TEXT.partition(f"**{title}**")
    return re.findall(r"^```\n(.*?)^```$", below, flags=re.MULTILINE | re.DOTALL)[0]


def run(script: str, folder: Path) -> str:
    """Run commands in the folder above the registry, as an operator does, and give what they print."""
    signalserve = f'signalserve() {{ "{sys.executable}" -m signalserve.cli.main "$@"; }}\n'
    done = subprocess.run(
        ["/bin/sh", "-e", "-c", signalserve + script],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def back_up(base: Path, backup: Path) -> None:
    """As the runbook says, but for the proof, which the test asks for itself."""
    lines = [line for line in commands("Back it up.").splitlines() if not line.startswith("signalserve")]
    assert len(lines) == 3
    run("\n".join(lines), base.parent)
    (base.parent / "backup").rename(backup)


def test_a_backup_that_was_taken_beside_a_writer_is_whole(tmp_path: Path) -> None:
    base, template = tmp_path / "registry", sealed_template(tmp_path / "template")
    register_copy(template, base, "m0")
    registry_at(base).promote([Promotion("m0")])
    over = threading.Event()

    def write() -> None:
        number = 0
        while not over.is_set():
            number += 1
            register_copy(template, base, f"m{number}")
            registry_at(base).promote([Promotion(f"m{number}")])

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    try:
        while len(seen) < 5:
            backup = tmp_path / f"backup{len(seen)}"
            back_up(base, backup)
            report = verify_log(backup)
            assert report.ok
            state = FolderStore(backup).view().state
            assert state.production(KEY) is not None
            assert all((backup / model_id / "model.onnx").is_file() for model_id in state.entries)
            seen.add(report.head)
            if len(seen) == len(list(tmp_path.glob("backup*"))):
                continue
            shutil.rmtree(backup)  # nothing was written since the last one
    finally:
        over.set()
        writer.join()
    head = verify_log(tmp_path / "backup0").head
    assert verify_log(base, head).ok


def test_a_registry_is_restored_in_place_and_a_follower_follows(tmp_path: Path) -> None:
    base, template = tmp_path / "registry", sealed_template(tmp_path / "template")
    register_copy(template, base, "one")
    registry_at(base).promote([Promotion("one")])
    printed = run(commands("Back it up."), tmp_path)
    head = verify_log(tmp_path / "backup").head
    assert f"head: {head}" in printed
    register_copy(template, base, "two")
    registry_at(base).promote([Promotion("two")])
    follower = FolderStore(base)
    assert follower.view().state.production(KEY) == "two"
    log, open_by_a_reader = base / "registry_events.jsonl", tmp_path / "newer.jsonl"
    open_by_a_reader.hardlink_to(log)
    newer = log.read_bytes()
    index, elsewhere = base / "registry_index.csv", tmp_path / "elsewhere.csv"
    index.rename(elsewhere)
    index.symlink_to(elsewhere)
    assert f"head: {head}" in run(commands("Restore it.").replace("HASH", head), tmp_path)
    view = follower.view()
    assert view.state.production(KEY) == "one"
    assert view.alarm
    assert open_by_a_reader.read_bytes() == newer, "nobody ever read a part of the log"
    registry_at(base).promote([Promotion("one")], request_id="goes on")
    assert (index.is_symlink(), elsewhere.is_file()) == (True, True)
    assert verify_log(base, head).ok


def test_a_folder_that_was_moved_needs_nothing(tmp_path: Path) -> None:
    base, template = tmp_path / "registry", sealed_template(tmp_path / "template")
    register_copy(template, base, "one")
    moved = tmp_path / "elsewhere" / "models"
    moved.parent.mkdir()
    base.rename(moved)
    assert load_model_by_id(moved, "one").meta.model_id == "one"
    registry_at(moved).promote([Promotion("one")])
    assert verify_log(moved).ok
