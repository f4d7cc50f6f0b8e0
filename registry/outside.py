"""What an index file is beside the log: current, late, edited by hand, or nothing that can be followed.

1. An index with the rows of the newest revision is current, whatever its spelling.
2. One with the rows of the revision before that nobody wrote since is late: a writer was killed between the two files.
3. One with the rows of any other revision can't be told from an old copy. It is asked about and not followed; so is
   one of which no row can be read, or from which most rows are missing.
4. Any other one was edited. What was changed, cell by cell, is found against the revision that it resembles most: the
   editor may have begun with an old copy. What has been decided since stays, where the editor did not change it.
5. A row that is missing deletes nothing while the model's folder stands, and a row that can't be read changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from signalserve.registry.entry import COLUMNS, ModelRegistryEntry, Status
from signalserve.registry.index import Index, UnreadableRow, parse_index
from signalserve.registry.projections import Base, Projections
from signalserve.registry.state import RegistryState


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
    """What an index is: `current`, an `edit`, or `asked` about, with why; late where it is none of these."""

    current: bool = False
    edit: Edit | None = None
    asked: str = ""
    unreadable: tuple[UnreadableRow, ...] = ()


def judge(
    content: bytes,
    entries: Mapping[str, ModelRegistryEntry],
    projections: Projections,
    revision: int,
    *,
    put_there_since: bool,
    stands: Callable[[str, ModelRegistryEntry], bool],
) -> Found:
    """Compare an index with the log, whose newest `revision` has these `entries`.

    `put_there_since`: the file was written after the log. `stands`: whether a model's folder is there.
    """
    index = parse_index(content, projections.known)
    same = projections.revision_of(index)
    if same == revision and revision:
        return Found(current=True, unreadable=index.unreadable)
    if entries and not index.entries:
        return Found(asked="none of its rows can be read" if index.unreadable else "it has no row left")
    if same:
        if same == revision - 1 and not put_there_since:
            return Found(unreadable=index.unreadable)
        return Found(asked=f"it has the rows of revision {same}, as an old copy has")
    base = projections.nearest(index)
    missing = [
        model_id
        for model_id in base.entries
        if model_id not in index.entries and not any(row.is_of(model_id) for row in index.unreadable)
    ]
    if len(missing) > 1 and 2 * len(missing) > len(base.entries):
        return Found(asked=f"{len(missing)} of {len(base.entries)} rows are missing from it")
    return Found(edit=edit_of(index, base, entries, missing, stands), unreadable=index.unreadable)


def edit_of(
    index: Index,
    base: Base,
    entries: Mapping[str, ModelRegistryEntry],
    missing: list[str],
    stands: Callable[[str, ModelRegistryEntry], bool],
) -> Edit:
    """What was done to the rows of `base`, laid over the `entries` of now."""
    written = []
    for model_id, entry in index.entries.items():
        began, now = base.entries.get(model_id), entries.get(model_id)
        if began is not None and began.line == entry.line:
            continue
        if now is None and began is not None and not stands(model_id, entry):
            continue  # deleted since, with its folder
        merged = entry if began is None or now is None else _merged(began, entry, now)
        if now is None or merged.line != now.line:
            written.append(merged)
    there = [model_id for model_id in missing if model_id in entries]
    back = [model_id for model_id in there if stands(model_id, entries[model_id])]
    gone = [model_id for model_id in there if model_id not in set(back)]
    raw_rows = index.raw_rows if frozenset(index.raw_rows) != base.raw_rows else None
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
    return replace(now, **changed)
