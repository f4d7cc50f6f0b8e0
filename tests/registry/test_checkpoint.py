"""The fold of a long log is kept beside it: used where it is proven, and never believed beyond that."""

from __future__ import annotations

import json
import os
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.long_log import LongLog, Scale
from signalserve.common.files import sha256_hex
from signalserve.common.key import Key
from signalserve.registry import Promotion, checkpoint, verify_log
from signalserve.registry import state as folding
from signalserve.registry.basis import Basis
from signalserve.registry.checkpoint import CHECKPOINT_FILE, EVERY, Checkpoint
from signalserve.registry.entry import ModelRegistryEntry, Status
from signalserve.registry.errors import LogCorruptError
from signalserve.registry.events import LOG_FILE, Beginning, EventLog, StatusChange
from signalserve.registry.folder_store import FolderStore
from signalserve.registry.projections import Projections
from signalserve.registry.state import Answer, Look, RegistryState
from signalserve.registry.store import Origin
from tests.registries import registry_at
from tests.small_models import register_copy, sealed_template

_SCALE = Scale(EVERY, 60)


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry of synthetic events, to which somebody has written once."""
    base = tmp_path_factory.mktemp("long") / "registry"
    LongLog(_SCALE).write(base)
    with FolderStore(base).transaction(Origin()):
        pass
    return base


@pytest.fixture
def base(long: Path, tmp_path: Path) -> Path:
    base = tmp_path / "registry"
    base.mkdir()
    for file in (path for path in long.iterdir() if path.suffix != ".lock"):
        (base / file.name).write_bytes(file.read_bytes())
    return base


def folded(base: Path) -> RegistryState:
    """The state by every event of the log."""
    state = RegistryState()
    for event in EventLog(base / LOG_FILE).read_new().events:
        state.apply(event)
    return state


def forge(base: Path, model_id: str) -> None:
    """Say in the checkpoint that a model is quarantined, with hashes that fit."""
    path = base / CHECKPOINT_FILE
    head, *lines = path.read_bytes().splitlines(keepends=True)
    lines.insert(1, json.dumps(["quarantined", [model_id]]).encode() + b"\n")
    about = json.loads(head)
    about["state_lines"] += 1
    about["body_sha256"] = sha256_hex(b"".join(lines))
    path.write_bytes(b"".join([json.dumps(about).encode() + b"\n", *lines]))


def test_a_long_log_is_not_folded_from_its_start(base: Path) -> None:
    known = FolderStore(base).view().state
    assert known == folded(base)
    model_id = next(iter(known.entries))
    forge(base, model_id)  # only who reads the checkpoint can believe it
    assert FolderStore(base).view().state.quarantined == {model_id}
    assert folded(base).quarantined == set()
    report = verify_log(base)
    assert [CHECKPOINT_FILE in problem for problem in report.problems] == [True]


def test_one_that_a_writer_saved_after_the_log_was_read_is_not_accused(base: Path) -> None:
    forge(base, next(iter(folded(base).entries)))
    log = EventLog(base / LOG_FILE)
    events = log.read_new().events
    saved = checkpoint.load(base)
    assert saved is not None
    assert checkpoint.problem_of(base, log, events)
    assert not checkpoint.problem_of(base, log, events[: saved.beginning.revision - 1])


def test_a_process_that_an_update_runs_beside_keeps_none_in_the_name_of_the_new_code(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_from_file_location("loaded_before_the_update", checkpoint.__file__)
    assert spec is not None
    assert spec.loader is not None
    running = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, running)
    spec.loader.exec_module(running)
    (tmp_path / "state.py").write_text("# it folds otherwise\n")
    monkeypatch.setattr(folding, "__file__", str(tmp_path / "state.py"))
    saved = running.load(base)
    assert saved is not None
    saved.save(base)
    assert checkpoint.load(base) is not None


def test_what_followed_the_checkpoint_is_folded_over_it(base: Path, tmp_path: Path) -> None:
    template = sealed_template(tmp_path / "template")
    register_copy(template, base, "new")
    registry_at(base).promote([Promotion("new")])
    (base / "registry_index.csv").write_text(
        (base / "registry_index.csv").read_text().replace("production", "archived", 1)
    )
    with FolderStore(base).transaction(Origin()):  # the edit is told by what every revision had
        pass
    store = FolderStore(base)
    state = store.view().state
    assert state == folded(base)
    assert state.revision == _SCALE.events + 3
    assert state.production(Key("BTCUSDT", "15m")) == "new"


@pytest.mark.parametrize(
    "how", ["torn", "no JSON", "another format", "other code", "a folder", "a line is changed"]
)
def test_a_checkpoint_that_can_not_be_used_costs_time_alone(base: Path, how: str) -> None:
    path = base / CHECKPOINT_FILE
    forge(base, next(iter(folded(base).entries)))
    content = path.read_bytes()
    head, _, body = content.partition(b"\n")
    changes: dict[str, dict[str, Any]] = {"another format": {"format": 99}, "other code": {"fold": "0" * 64}}
    path.write_bytes(
        {
            "torn": content[: len(content) // 2],
            "no JSON": b"\xff\xfe" + content,
            "a line is changed": content.replace(b'"quarantined"', b'"quarantyned"'),
        }.get(how, json.dumps(json.loads(head) | changes.get(how, {})).encode() + b"\n" + body)
    )
    if how == "a folder":
        path.unlink()
        path.mkdir()
    assert FolderStore(base).view().state == folded(base)


def test_a_checkpoint_of_another_log_is_not_used(base: Path, tmp_path: Path) -> None:
    assert verify_log(base).ok
    forge(base, next(iter(folded(base).entries)))
    other = tmp_path / "other"
    register_copy(sealed_template(tmp_path / "template"), other, "one")
    (other / CHECKPOINT_FILE).write_bytes((base / CHECKPOINT_FILE).read_bytes())
    assert FolderStore(other).view().state == folded(other)
    assert verify_log(other).ok


def test_a_byte_that_was_changed_in_what_the_checkpoint_holds_is_still_found(base: Path) -> None:
    change_a_byte(base / LOG_FILE)
    with pytest.raises(LogCorruptError, match="hash that does not fit"):
        FolderStore(base).view()


def test_a_byte_that_was_changed_under_a_reader_is_found_without_a_restart(base: Path) -> None:
    store = FolderStore(base)
    store.view()
    before = change_a_byte(base / LOG_FILE)
    for _ in range(2):
        with pytest.raises(LogCorruptError, match="hash that does not fit"):
            store.view()
    write_at(base / LOG_FILE, *before)
    assert store.view().state == folded(base)


def test_where_it_can_not_be_kept_a_change_is_made_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "EVERY", 1)
    base = tmp_path / "registry"
    (base / CHECKPOINT_FILE).mkdir(parents=True)
    register_copy(sealed_template(tmp_path / "template"), base, "one")
    registry_at(base).promote([Promotion("one")])
    assert folded(base).production(Key("BTCUSDT", "15m")) == "one"


def change_a_byte(log: Path) -> tuple[int, bytes]:
    """In the middle of the log, in place; what was there and where."""
    at = log.read_bytes().index(b'"actor":"l', log.stat().st_size // 2) + len(b'"actor":"')
    write_at(log, at, b"b")
    return at, b"l"


def write_at(log: Path, at: int, byte: bytes) -> None:
    with log.open("r+b") as stream:
        stream.seek(at)
        stream.write(byte)
    now = log.stat().st_mtime_ns + 1_000_000  # coarse clocks of file systems
    os.utime(log, ns=(now, now))


# bytes that are no UTF-8 are read as halves of surrogate pairs
_text = st.text(st.characters(exclude_categories=("Cs",)) | st.sampled_from("\udc80\udcff"), max_size=8)
_times = st.integers(0, 10**6)
_keys = st.builds(Key, _text, _text)
_statuses = st.sampled_from(list(map(str, Status)))
_changes = st.builds(StatusChange, _text, _text, _text, st.none() | _statuses, st.none() | _statuses, _text)
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | _text,
    lambda x: st.lists(x, max_size=3) | st.dictionaries(_text, x, max_size=3),
)
_costs = st.none() | st.floats(0.0, 9.0)
_bases = st.builds(Basis, _text, _costs, _costs, _text, _text)
_entries = st.builds(ModelRegistryEntry, _text, _text, _text, _text, _text, _text, status=_statuses)


@given(
    st.builds(
        RegistryState,
        revision=_times,
        entries=st.lists(_entries, max_size=4).map(lambda found: {entry.model_id: entry for entry in found}),
        raw_rows=st.lists(_text, max_size=3).map(tuple),
        history=st.dictionaries(_keys, st.lists(_text, max_size=3).map(tuple), max_size=3),
        quarantined=st.sets(_text, max_size=3),
        digests=st.dictionaries(_text, _text, max_size=3),
        put_in_production=st.dictionaries(_text, _times, max_size=3),
        requests=st.dictionaries(
            _text,
            st.builds(
                Answer,
                _times,
                _text,
                _text,
                st.lists(_changes, max_size=2).map(tuple),
                _text,
                st.lists(st.dictionaries(_text, _json, max_size=2), max_size=2).map(tuple),
                _text,
            ),
            max_size=3,
        ),
        used_ids=st.sets(_text, max_size=3),
        evidence=st.dictionaries(_text, st.dictionaries(_text, _json, max_size=3), max_size=3),
        looks=st.dictionaries(
            _keys,
            st.lists(st.builds(Look, _text, _text, _text, st.booleans()), max_size=3).map(tuple),
            max_size=3,
        ),
        not_servable=st.dictionaries(_text, _text, max_size=3),
        decided=st.dictionaries(_keys, _text, max_size=3),
        by_hand=st.dictionaries(_text, _times, max_size=3),
        let_in=st.dictionaries(_text, _bases, max_size=3),
        refits=st.dictionaries(_text, _text, max_size=3),
        registered=st.dictionaries(_text, _text, max_size=3),
        in_production=st.dictionaries(_keys, st.lists(_text, max_size=3).map(tuple), max_size=3),
    )
)
def test_any_state_is_read_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, state: RegistryState
) -> None:
    folder = tmp_path_factory.mktemp("state")
    beginning = Beginning(state.revision, 1, 1, "0" * 64, sha256_hex(state.render()))
    Checkpoint(beginning, state, Projections()).save(folder)
    found = checkpoint.load(folder)
    assert found is not None
    assert found.beginning == beginning
    assert found.state == state
