"""What an index file is beside the log: current, late, edited by hand, or nothing that can be followed.

1. Models and their statuses are compared with those of every revision (`registry.projections`); other cells tell
   nothing.
2. Those of the newest revision: the index is current, or other cells of it were edited.
3. Those of an earlier revision, where a writer was stopped between the newest event and its index: it is late.
4. Those of any other revision can't be told from an old copy. It is asked about and not followed; so is an edit that an
   earlier revision explains better than the newest, and a file of which no row can be read, or most are missing.
5. But a file that lacks the models that came after a revision is a copy of that one: what was edited in it, cell by
   cell, is taken, and what has been decided since stays.
6. A row that is missing deletes nothing while the model's folder stands. A row that can't be read, or has no status,
   changes no status, and tells nothing of what the file is a copy of. A model's symbol and timeframe are not to be
   edited.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, replace
from typing import Any

from signalserve.registry.entry import COLUMNS, ModelRegistryEntry, Status
from signalserve.registry.events import Action, StatusChange
from signalserve.registry.index import Index, UnreadableRow, parse_index
from signalserve.registry.projections import Base, Projections
from signalserve.registry.state import RegistryState
from signalserve.registry.store import Draft

# what a model was trained for
_FIXED = frozenset({"symbol", "timeframe"})


@dataclass(frozen=True)
class Edit:
    """What an editor did: rows to take, as they shall be now, and the models whose row and folder are gone.

    `base` is the revision that was edited. `written_back` are models whose row is missing while their folder stands;
    `raw_rows` the unreadable rows, None where they are as they were.
    """

    base: int
    written: tuple[ModelRegistryEntry, ...] = ()
    removed: tuple[str, ...] = ()
    raw_rows: tuple[str, ...] | None = None
    written_back: tuple[str, ...] = ()

    @property
    def changes(self) -> bool:
        """Whether there is anything to record."""
        return bool(self.written or self.removed) or self.raw_rows is not None


@dataclass(frozen=True)
class Found:
    """What an index is: `current`, an `edit`, or `asked` about, with why; late where it is none of these.

    `legible`: some row of it can be read.
    """

    current: bool = False
    edit: Edit | None = None
    asked: str = ""
    legible: bool = True
    unreadable: tuple[UnreadableRow, ...] = ()


def judge(
    content: bytes,
    state: RegistryState,
    projections: Projections,
    *,
    unfinished: bool,
    stands: Callable[[str, ModelRegistryEntry], bool],
) -> Found:
    """Compare an index with the log, whose newest revision gives `state`.

    `unfinished`: a writer has not come to write the newest revision's index. `stands`: whether a model's folder is
    there.
    """
    index = parse_index(content, by_line(state))
    if state.entries and not index.entries:
        why = "none of its rows can be read" if index.unreadable else "it has no row left"
        return Found(asked=why, legible=False)
    unsaid = _unsaid(index, state)
    rows = _filled(index, unsaid, state)
    lacks_some = any(model_id not in rows for model_id in state.entries)
    same = projections.revision_of(rows)
    began = projections.nearest(rows, unsaid) if same is None else same
    base = Base(began, state.entries) if began == state.revision else projections.at(began)
    missing = [model_id for model_id in base.entries if model_id not in rows]
    if len(missing) > 1 and 2 * len(missing) > len(base.entries):
        return Found(asked=f"{len(missing)} of {len(base.entries)} rows are missing from it")
    edit = edit_of(index, rows, base, state, missing, stands)
    if base.revision == state.revision:
        nothing = same is not None and not edit.changes
        return Found(current=nothing and bool(state.revision), edit=edit, unreadable=index.unreadable)
    if lacks_some and (same is None or edit.written):
        return Found(edit=edit, unreadable=index.unreadable)
    if same is None:
        return Found(
            asked=f"it may be a copy of revision {base.revision} that was edited, or an edit of several rows"
        )
    if unfinished and not edit.written:
        return Found(unreadable=index.unreadable)
    return Found(asked=f"it has the models and statuses of revision {same}, as an old copy has")


def by_line(state: RegistryState) -> dict[str, ModelRegistryEntry]:
    """The entries by their lines in an index, which most rows of another one are."""
    return {entry.line: entry for entry in state.entries.values()}


def rows_of(index: Index, state: RegistryState) -> dict[str, ModelRegistryEntry]:
    """The rows of an index, with what it does not say as it is now: statuses, and known models whose row is spoilt."""
    return _filled(index, _unsaid(index, state), state)


def _unsaid(index: Index, state: RegistryState) -> Set[str]:
    """Known models of which an index says no status: the cell is empty, or the row can't be read."""
    return (index.without_status | index.spoilt(state.entries)) & state.entries.keys()


def _filled(index: Index, unsaid: Set[str], state: RegistryState) -> dict[str, ModelRegistryEntry]:
    rows = dict(index.entries)
    for model_id in sorted(unsaid):
        now = state.entries[model_id]
        rows[model_id] = rows[model_id].with_status(now.status) if model_id in rows else now
    return rows


def edit_of(
    index: Index,
    rows: Mapping[str, ModelRegistryEntry],
    base: Base,
    state: RegistryState,
    missing: list[str],
    stands: Callable[[str, ModelRegistryEntry], bool],
) -> Edit:
    """What was done to the rows of `base`, laid over those of now."""
    written = []
    for model_id, entry in rows.items():
        began, now = base.entries.get(model_id), state.entries.get(model_id)
        if began is not None and began.line == entry.line:
            continue
        if now is None and began is not None and not stands(model_id, entry):
            continue  # deleted since, with its folder
        merged = entry if now is None else _merged(began or now, entry, now)
        if now is None or merged.line != now.line:
            written.append(merged)
    there = [model_id for model_id in missing if model_id in state.entries]
    back = [model_id for model_id in there if stands(model_id, state.entries[model_id])]
    gone = [model_id for model_id in there if model_id not in set(back)]
    ours = base.revision == state.revision
    raw_rows = index.raw_rows if ours and set(index.raw_rows) != set(state.raw_rows) else None
    return Edit(base.revision, tuple(written), tuple(gone), raw_rows, tuple(back))


def superseded(index: Index, state: RegistryState) -> tuple[ModelRegistryEntry, ...]:
    """Production models that an index has no row of, archived, where it has another one in production for their key."""
    taken = {entry.key for entry in index.entries.values() if entry.status == Status.PRODUCTION}
    return tuple(
        state.entries[model_id].with_status(Status.ARCHIVED)
        for key in taken
        for model_id in state.in_production.get(key, ())
        if model_id not in index.entries
    )


def _merged(
    began: ModelRegistryEntry, edited: ModelRegistryEntry, now: ModelRegistryEntry
) -> ModelRegistryEntry:
    """The present row with the cells that the editor changed."""
    old, new = began.to_row(), edited.to_row()
    changed = {name: getattr(edited, name) for name in COLUMNS if old[name] != new[name]}
    return replace(now, **{name: value for name, value in changed.items() if name not in _FIXED})


def external_edit(state: RegistryState, edit: Edit) -> Draft:
    """The event's content that records an edit."""
    changes: list[StatusChange] = []
    for entry in edit.written:
        before = state.entries.get(entry.model_id)
        if before is None or before.status != entry.status:
            changes.append(
                StatusChange(
                    entry.symbol,
                    entry.timeframe,
                    entry.model_id,
                    before.status if before else None,
                    entry.status,
                    state.digests.get(entry.model_id, ""),
                )
            )
    # leaving production comes first, so that the new model ends on top of the key's history
    changes.sort(key=lambda change: change.after == "production")
    for model_id in edit.removed:
        gone = state.entries[model_id]
        changes.append(StatusChange(gone.symbol, gone.timeframe, model_id, gone.status, None))
    detail: dict[str, Any] = {"entries": [entry.to_row() for entry in edit.written]}
    if edit.raw_rows is not None:
        detail["raw_rows"] = list(edit.raw_rows)
    if edit.base != state.revision:
        detail["base_revision"] = edit.base
    return Draft(Action.EXTERNAL_EDIT, tuple(changes), detail)
