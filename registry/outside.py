"""What an index file is beside the log: current, late, edited by hand, or nothing that can be followed.

1. Models and their statuses are compared with those of every revision (`registry.projections`); other cells tell
   nothing.
2. Those of the newest revision: the index is current, or other cells of it were edited.
3. Those of the revision before, where a writer was stopped between the newest event and its index: it is late. Where
   the disk had no room for the index, it may be late by several revisions.
4. Those of any other revision can't be told from an old copy. It is asked about and not followed; so is an edit that an
   earlier revision explains better than the newest, an old copy that was cut off, and a file of which no row can be
   read, or most are missing.
5. But a file that lacks the models that came after a revision is a copy of that one: what was edited in it, cell by
   cell, is taken, and what has been decided since stays.
6. What is in production changes by what was edited alone. So an edit that changes it is asked about where an earlier
   revision that explains it as well had one of its rows; and in a file that lacks models, also where any revision that
   may have been copied had one, or where its model was moved since.
7. A row that is missing deletes nothing while the model's folder stands. A row that can't be read, or has no status,
   changes no status, and tells nothing of what the file is a copy of. A model's symbol and timeframe are not to be
   edited.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, replace
from typing import Any

from signalserve.common.key import Key
from signalserve.registry.entry import COLUMNS, ModelRegistryEntry, Status
from signalserve.registry.events import Action, Event, StatusChange
from signalserve.registry.index import Index, UnreadableRow, parse_index
from signalserve.registry.projections import Base, Nearest, Projections
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

    `legible`: some row of it can be read. `several`: it is late by several revisions, or an old copy after all.
    """

    current: bool = False
    edit: Edit | None = None
    asked: str = ""
    legible: bool = True
    several: bool = False
    unreadable: tuple[UnreadableRow, ...] = ()


def judge(
    content: bytes,
    state: RegistryState,
    projections: Projections,
    *,
    unfinished: bool,
    no_room: bool = False,
    stands: Callable[[str, ModelRegistryEntry], bool],
) -> Found:
    """Compare an index with the log, whose newest revision gives `state`.

    `unfinished`: a writer has not come to write the newest revision's index, and with `no_room` could not. `stands`:
    whether a model's folder is there.
    """
    index = parse_index(content, by_line(state))
    if state.entries and not index.entries:
        why = "none of its rows can be read" if index.unreadable else "it has no row left"
        return Found(asked=why, legible=False)
    unsaid = _unsaid(index, state)
    rows = _filled(index, unsaid, state)
    same = projections.revision_of(rows)
    near = projections.nearest(rows, unsaid) if same is None else Nearest(same)
    newest = near.revision == state.revision
    base = Base(near.revision, state.entries) if newest else projections.at(near.revision)
    lost = [model_id for model_id in state.entries if model_id not in rows]
    missing = [model_id for model_id in base.entries if model_id not in rows]
    if same is None:
        for gone, of in ((lost, state.entries), (missing, base.entries)):
            if len(gone) > 1 and 2 * len(gone) > len(of):
                return Found(asked=f"{len(gone)} of {len(of)} rows are missing from it")
        if lost and not newest and not near.wrong:
            return Found(asked=f"it may be a copy of revision {base.revision} that was cut off")
    edit = edit_of(index, rows, base, state, missing, stands)
    if newest or (lost and (same is None or edit.written)):
        doubtful = _is_doubtful(edit, base, state, near) if lost else near.tied
        if doubtful and productions_moved(state, laid_over(state, external_edit(state, edit))):
            return Found(
                asked="it changes what is in production, and may be a copy of an earlier revision that was edited"
            )
        nothing = newest and same is not None and not edit.changes
        return Found(current=nothing and bool(state.revision), edit=edit, unreadable=index.unreadable)
    if same is None:
        return Found(
            asked=f"it may be a copy of revision {base.revision} that was edited, or an edit of several rows"
        )
    several = same != state.revision - 1
    if unfinished and not edit.written and (no_room or not several):
        return Found(several=several, unreadable=index.unreadable)
    return Found(asked=f"it has the models and statuses of revision {same}, as an old copy has")


def _is_doubtful(edit: Edit, base: Base, state: RegistryState, near: Nearest) -> bool:
    """Whether an edit moves a model into or out of production that an editor of an old copy need not have meant.

    He need not where the model had that status at some revision, or has another one now than in his copy.
    """
    for entry in edit.written:
        began, now = base.entries.get(entry.model_id), state.entries.get(entry.model_id)
        was = None if now is None else now.status
        moves = was != entry.status and Status.PRODUCTION in (was, entry.status)
        if moves and (entry.model_id in near.seen or (began is not None and began.status != was)):
            return True
    return False


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


def laid_over(state: RegistryState, draft: Draft) -> RegistryState:
    """The state as a draft's changes make it."""
    after = state.copy()
    after.apply(Event(state.revision, "", "", "", draft.action, changes=draft.changes, detail=draft.detail))
    return after


def productions_moved(
    before: RegistryState, after: RegistryState
) -> dict[Key, tuple[str | None, str | None]]:
    """The model in production before and after, None for none, of each key where they differ."""
    was, now = before.productions(), after.productions()
    return {key: (was.get(key), now.get(key)) for key in sorted({*was, *now}) if was.get(key) != now.get(key)}
