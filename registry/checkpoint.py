"""The fold of a long log, kept beside it, so that a cold open reads the newest events alone.

1. It is for one beginning of the log, by its sha256, and for the code that folded it. Where either is another one, or
   it can't be read, the log is folded from its start.
2. Its index must be the one that the last of its events names. For the rest of it `verify-log` folds the log and
   compares: whoever may write the folder may write this file too.
3. A writer keeps it after its turn, once there are so many events more. It may be deleted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from signalserve.common.collector import collector_paused
from signalserve.common.files import read_regular, sha256_hex, write_atomically
from signalserve.common.key import Key
from signalserve.registry.basis import Basis
from signalserve.registry.entry import COLUMNS, ModelRegistryEntry
from signalserve.registry.events import Beginning, Event, EventLog, StatusChange, canonical
from signalserve.registry.projections import Projections
from signalserve.registry.sections import read, written
from signalserve.registry.state import Answer, Look, RegistryState

CHECKPOINT_FILE = "registry_checkpoint.jsonl"
# so many events are folded in a tenth of a second; of a long log a part, since saving takes longer too
EVERY = 2_000
_PART = 20
_FORMAT = 1
_LARGEST = 1 << 30
# what says what an event does to the state, and how a state is spelt
_FOLD = ("basis", "checkpoint", "entry", "events", "index", "projections", "sections", "state")


@dataclass(frozen=True)
class Checkpoint:
    """A state, the projections that led to it, and the beginning of the log that they are the fold of."""

    beginning: Beginning
    state: RegistryState
    projections: Projections

    def save(self, folder: Path) -> None:
        """Keep it beside the log.

        Raises:
            OSError: it can't be written.
        """
        write_atomically(folder / CHECKPOINT_FILE, self.content(), durable=False)

    def content(self) -> bytes:
        """The file; the same fold gives the same one."""
        state = list(written(_sections(self.state)))
        body = [*state, *self.projections.lines()]
        about = {
            "format": _FORMAT,
            "fold": FOLD_SHA256,
            "beginning": self.beginning._asdict(),
            "body_sha256": sha256_hex(b"".join(body)),
            "state_lines": len(state),
        }
        return b"".join([canonical(about) + b"\n", *body])


def is_due(beginning: Beginning, kept: int) -> bool:
    """Whether to keep one again, after the one of the revision `kept`."""
    return beginning.revision >= kept + max(EVERY, kept // _PART) and bool(FOLD_SHA256)


def load(folder: Path) -> Checkpoint | None:
    """The checkpoint beside a log; None for none that this code can use. The caller compares its beginning."""
    try:
        content = read_regular(folder / CHECKPOINT_FILE, largest=_LARGEST)
        head, _, body = content.partition(b"\n")
        about = json.loads(head)
        fits = about["format"] == _FORMAT and about["fold"] and about["fold"] == FOLD_SHA256
        if not fits or about["body_sha256"] != sha256_hex(body):
            return None
        lines = body.splitlines(keepends=True)
        with collector_paused():
            state = _state_of(read(lines[: about["state_lines"]]))
        beginning = Beginning(**about["beginning"])
        if sha256_hex(state.render()) != beginning.index_sha256:
            return None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return Checkpoint(beginning, state, Projections(lines[about["state_lines"] :]))


def problem_of(folder: Path, log: EventLog, events: Sequence[Event]) -> str:
    """Whether a checkpoint that would be used says something else than the events of the whole log; empty for no.

    Raises:
        OSError: the log can't be read.
    """
    saved = load(folder)
    # one of a later revision was saved since the events were read
    if saved is None or saved.beginning.revision > len(events) or not log.begins_with(saved.beginning):
        return ""
    state, projections = RegistryState(), Projections()
    for event in events[: saved.beginning.revision]:
        state.apply(event)
        projections.take(event, state)
    if Checkpoint(saved.beginning, state, projections).content() == saved.content():
        return ""
    return f"{CHECKPOINT_FILE} is not what the log gives: delete it, and find out who wrote it"


def _fold_sha256() -> str:
    try:
        sources = [Path(str(import_module(f"signalserve.registry.{name}").__file__)) for name in _FOLD]
        return sha256_hex(b"".join(source.read_bytes() for source in sources))
    except OSError:
        return ""


# Which code folds; empty where its source is not at hand, and nothing is kept. It is read as the code is loaded: an
# update beside a process that runs changes the source, and not what that process does.
FOLD_SHA256 = _fold_sha256()


def _sections(state: RegistryState) -> Iterator[tuple[str, Iterable[Any]]]:
    yield "revision", [state.revision]
    yield "entries", (list(entry.to_row().values()) for entry in state.entries.values())
    yield "raw_rows", state.raw_rows
    for name in _SETS:
        yield name, sorted(getattr(state, name))
    for name in _BY_MODEL:
        yield name, getattr(state, name).items()
    for name in _BY_KEY:
        yield name, ([*key, value] for key, value in getattr(state, name).items())
    yield "let_in", state.let_in.items()
    yield "requests", (_spelt(*item) for item in state.requests.items())


def _spelt(request_id: str, answer: Answer) -> list[Any]:
    values = answer._asdict() | {"changes": [change.to_dict() for change in answer.changes]}
    return [request_id, *values.values()]


def _state_of(found: Mapping[str, list[Any]]) -> RegistryState:
    def items(name: str) -> list[Any]:
        return found.get(name, [])

    (revision,) = items("revision")
    state = RegistryState(revision, raw_rows=tuple(items("raw_rows")))
    entries = (
        ModelRegistryEntry.from_row(dict(zip(COLUMNS, cells, strict=True))) for cells in items("entries")
    )
    state.entries = {entry.model_id: entry for entry in entries}
    for name in _SETS:
        getattr(state, name).update(items(name))
    for name in _BY_MODEL:
        getattr(state, name).update(items(name))
    for name, of_value in _BY_KEY.items():
        getattr(state, name).update((Key(*key), of_value(value)) for *key, value in items(name))
    state.let_in.update((model_id, Basis(*value)) for model_id, value in items("let_in"))
    for request_id, revision, digest, action, changes, asked, result, error in items("requests"):
        made = tuple(StatusChange.from_dict(change) for change in changes)
        state.requests[request_id] = Answer(revision, digest, action, made, asked, tuple(result), error)
    return state


def _looks(values: list[list[Any]]) -> tuple[Look, ...]:
    return tuple(Look(*value) for value in values)


_SETS = ("quarantined", "used_ids")
_BY_MODEL = ("digests", "put_in_production", "evidence", "not_servable", "by_hand", "registered", "refits")
_BY_KEY: Mapping[str, Callable[[Any], Any]] = {
    "history": tuple,
    "looks": _looks,
    "decided": str,
    "in_production": tuple,
}
