"""One registry: built in a composition root, handed on from there."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from signalserve.registry.artefact import Artefacts
from signalserve.registry.folder_store import open_store
from signalserve.registry.gate import Gate, NoGate
from signalserve.registry.hand_edits import HandEdits
from signalserve.registry.moves import Moves
from signalserve.registry.queries import Queries
from signalserve.registry.registration import Registration
from signalserve.registry.signing import Signer
from signalserve.registry.store import Store
from signalserve.registry.unmade import EmptyUntilMade


class Registry(Queries, Moves, Registration, HandEdits):
    """Models, their lifecycle and its log.

    It reads no configuration: what a promote must show is the gate's to say, and the gate is handed in, so that the
    same promote meets the same gate in every working directory.

    ::

        registry = open_registry("outputs/ml_models", gate=PromoteGate.of(settings), pins=settings.ml.pinned_ids())
        registry.promote([Promotion(model_id)], reason="weekly")
    """


def open_registry(
    base_dir: Path | str,
    *,
    gate: Gate | None = None,
    pins: Iterable[str] = (),
    signer: Signer | None = None,
    unmade_is_empty: bool = False,
) -> Registry:
    """The registry that a folder holds; nothing is read or made yet.

    Args:
        base_dir: the folder.
        gate: decides on candidates and promotes; None lets nothing pass but by force.
        pins: model_ids that retention and clean never remove.
        signer: signs each event that this process commits there (`signer_of`).
        unmade_is_empty: read a folder that never held a registry as an empty one, and not as an error.
    """
    store: Store = open_store(base_dir, signer)
    if unmade_is_empty:
        store = EmptyUntilMade(store)
    return Registry(store, Artefacts(base_dir), NoGate() if gate is None else gate, pins)
