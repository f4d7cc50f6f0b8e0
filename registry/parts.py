"""What a registry is made of; each capability stands in a file of its own on top of this."""

from __future__ import annotations

from collections.abc import Iterable

from signalserve.common.key import Key
from signalserve.registry.artefact import Artefact, Artefacts
from signalserve.registry.entry import ModelRegistryEntry
from signalserve.registry.gate import Gate
from signalserve.registry.plans import entry_of
from signalserve.registry.state import RegistryState
from signalserve.registry.store import Store, View


class Parts:
    """The parts, and what every capability asks of them.

    Args:
        store: the events and the state.
        artefacts: where the models' files lie.
        gate: decides what may become a candidate or go into production.
        pins: model_ids that retention and clean never remove.
    """

    def __init__(self, store: Store, artefacts: Artefacts, gate: Gate, pins: Iterable[str] = ()) -> None:
        self.store = store
        self.artefacts = artefacts
        self.gate = gate
        self.pins = frozenset(pins)

    def view(self, *, wait: bool = False) -> View:
        """The present state and what is wrong with the index; see `Store.view`.

        Raises:
            StorageError: the registry can't be read.
        """
        return self.store.view(wait=wait)

    @property
    def state(self) -> RegistryState:
        """The present state.

        Raises:
            StorageError: the registry can't be read.
        """
        return self.store.view().state

    def entry(self, model_id: str) -> ModelRegistryEntry:
        """The entry of an id.

        Raises:
            UnknownModelError: there is none.
        """
        return entry_of(self.state, model_id)

    @property
    def holds_hand_edits(self) -> bool:
        """Whether what an edit of the index put into production counts for nothing until it is confirmed."""
        return self.gate.holds_hand_edits

    def standing(self, state: RegistryState, key: Key) -> str | None:
        """The model that a key has now, as the gate has it; None for none. See `RegistryState.standing`."""
        return state.standing(key, hold=self.holds_hand_edits)

    def artefact_of(self, state: RegistryState, model_id: str) -> Artefact:
        """A fresh look at a model's files, with the digest that a state has of them.

        Raises:
            UnknownModelError: there is no such model.
        """
        return self.artefacts.seen(state, entry_of(state, model_id))

    def artefact(self, model_id: str) -> Artefact:
        """As `artefact_of`, by the present state."""
        return self.artefact_of(self.state, model_id)
