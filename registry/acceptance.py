"""An index that is taken as a decision: what it would change, found before anybody is asked.

1. Its rows are laid over the present state. A row that is missing deletes nothing while the model's folder stands; a
   production model without a row makes way for the one that the index has in production for its key.
2. A model without a folder comes back by no row: a new one is left out, and one that would be in production is refused.
3. A row that can't be read changes nothing and stays as it is.
4. It decides on the keys that it is shown to: those of which production changes, and those of its rows of which what
   was edited by hand waits to be confirmed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from signalserve.registry.entry import ModelRegistryEntry, Status
from signalserve.registry.errors import ArtefactError, InvalidArgumentError
from signalserve.registry.index import parse_index
from signalserve.registry.outside import (
    by_line,
    edit_of,
    external_edit,
    laid_over,
    productions_moved,
    rows_of,
    superseded,
)
from signalserve.registry.projections import Base
from signalserve.registry.state import RegistryState
from signalserve.registry.store import Acceptance

Stands = Callable[[str, ModelRegistryEntry], bool]


def acceptance_of(
    content: bytes,
    state: RegistryState,
    stands: Stands,
    *,
    as_it_lies: bool = False,
) -> Acceptance:
    """What an index would do to a state; `stands` says whether a model's folder is there.

    `as_it_lies` takes rows of models without a folder too, as where nothing but the index says what there was.

    Raises:
        InvalidArgumentError: none of its rows can be read.
        ArtefactError: a model would go into production whose folder is not there.
    """
    index = parse_index(content, by_line(state))
    if not index.entries:
        raise InvalidArgumentError("none of its rows can be read", reason="UNREADABLE_INDEX")
    rows = rows_of(index, state)
    left_out = {} if as_it_lies else _without_folder(rows, state, stands)
    missing = [model_id for model_id in state.entries if model_id not in rows]
    taken = {model_id: entry for model_id, entry in rows.items() if model_id not in left_out}
    edit = edit_of(index, taken, Base(state.revision, state.entries), state, missing, stands)
    replaced = superseded(index, state)
    edit = replace(edit, written=(*edit.written, *replaced))
    recorded = external_edit(state, edit)
    after = laid_over(state, recorded)
    productions = productions_moved(state, after)
    keys = sorted({*productions, *(entry.key for entry in taken.values())})
    confirmed = {
        key: (state.decision(key), after.production(key))
        for key in keys
        if state.decided.get(key) != after.production(key)
    }
    shown = [[key.symbol, key.timeframe] for key in keys if key in productions or key in confirmed]
    recorded = replace(recorded, detail={**recorded.detail, "accepted": True, "keys": shown})
    moved = {change.model_id for change in recorded.changes}
    makes_way = {entry.model_id for entry in replaced}
    return Acceptance(
        recorded,
        productions,
        confirmed,
        respelt=tuple(entry.model_id for entry in edit.written if entry.model_id not in moved),
        left_out=tuple(left_out),
        stays=tuple(name for name in edit.written_back if name not in makes_way),
        unreadable=index.unreadable,
    )


def _without_folder(
    rows: Mapping[str, ModelRegistryEntry], state: RegistryState, stands: Stands
) -> dict[str, ModelRegistryEntry]:
    """The rows of new models whose folder is not there; one that would go into production is refused."""
    found = {}
    for model_id, entry in rows.items():
        now = state.entries.get(model_id)
        promoted = entry.status == Status.PRODUCTION and (now is None or now.status != Status.PRODUCTION)
        if (now is not None and not promoted) or stands(model_id, entry):
            continue
        if promoted:
            raise ArtefactError(
                f"{model_id} would be in production for {entry.key}, and its folder is not there: put it back, or "
                "take the row out of a copy of the index and accept that",
                metadata={"model_id": model_id},
            )
        found[model_id] = entry
    return found
