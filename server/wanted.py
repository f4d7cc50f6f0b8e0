"""Which models a server should serve at a registry revision, and the snapshot that comes of those it has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from signalserve.common.key import Key
from signalserve.registry.basis import Basis
from signalserve.registry.entry import ModelRegistryEntry
from signalserve.registry.index import INDEX_FILE
from signalserve.registry.queries import warnings_of
from signalserve.registry.state import RegistryState
from signalserve.registry.store import View
from signalserve.server.limits import ModelChoice
from signalserve.server.snapshot import Behind, LoadFailure, ServedModel, ServingSnapshot


@dataclass(frozen=True)
class Wanted:
    """The model of each key: what is in production, or pinned; `problems` are the pins that are wrong."""

    revision: int
    models: Mapping[Key, ModelRegistryEntry]
    digests: Mapping[str, str]
    not_servable: Mapping[str, str]
    pinned: frozenset[Key]
    problems: tuple[LoadFailure, ...]
    known_keys: frozenset[Key]
    known_ids: Mapping[str, Key]
    warnings: tuple[str, ...]
    bases: Mapping[str, Basis]

    def fits(self, key: Key, served: ServedModel) -> bool:
        """Whether a loaded model is the key's, and its artefact still the registered one."""
        digest = served.predictor.digest
        return (
            bool(digest)
            and served.model_id == self.models[key].model_id
            and digest == self.digests.get(served.model_id, "")
        )


def wanted_of(view: View, choice: ModelChoice) -> Wanted:
    """What a view of the registry and the configuration ask for."""
    state = view.state
    wanted, pinned = _in_production(state, choice), set[Key]()
    problems: list[LoadFailure] = []
    if choice.for_its_key is not None:
        entry = state.entries.get(choice.for_its_key)
        if entry is not None:
            wanted[entry.key] = entry.model_id
            pinned.add(entry.key)
        else:
            problems.append(_unknown_pin(Key("", ""), choice.for_its_key, "ml.production_model", state))
    for key, model_id in choice.pins.items():
        entry = state.entries.get(model_id)
        if entry is not None and entry.key == key:
            wanted[key] = model_id
            pinned.add(key)
        else:
            wanted.pop(key, None)  # a wrong pin serves nothing rather than something else
            problems.append(_unknown_pin(key, model_id, f"ml.pins[{str(key)!r}]", state))
    return Wanted(
        revision=state.revision,
        models={key: state.entries[model_id] for key, model_id in wanted.items()},
        digests=dict(state.digests),
        not_servable=dict(state.not_servable),
        pinned=frozenset(pinned),
        problems=tuple(problems),
        known_keys=frozenset(state.keys()),
        known_ids=MappingProxyType({entry.model_id: entry.key for entry in state.entries.values()}),
        warnings=tuple(warnings_of(view, index=INDEX_FILE, hold=choice.hold_hand_edits)),
        bases=MappingProxyType(_bases(state, wanted.values(), hold=choice.hold_hand_edits)),
    )


def _bases(state: RegistryState, model_ids: Iterable[str], *, hold: bool) -> dict[str, Basis]:
    """What each was let in on; a pin may name one that never was."""
    found = ((model_id, state.basis(model_id, hold=hold)) for model_id in model_ids)
    return {model_id: basis for model_id, basis in found if basis is not None}


def _in_production(state: RegistryState, choice: ModelChoice) -> dict[Key, str]:
    if not choice.hold_hand_edits:
        return state.productions()
    return {key: model_id for key, model_id in state.decided.items() if model_id in state.entries}


def snapshot_of(
    wanted: Wanted,
    models: dict[Key, ServedModel],
    failures: dict[Key, LoadFailure],
    pending: dict[Key, Behind],
    not_current: dict[Key, Behind],
    *,
    started: bool,
    strict: bool,
) -> ServingSnapshot:
    """The snapshot of what is loaded by now; the four are kept, and must not change any more.

    `started`: every first load has ended. `strict`: it is not ready while any model could not be loaded.
    """
    if strict:
        served_enough = not failures and not wanted.problems
    else:
        served_enough = bool(models) or not (wanted.models or wanted.problems)
    return ServingSnapshot(
        revision=wanted.revision,
        by_key=MappingProxyType(models),
        by_id=MappingProxyType({served.model_id: served for served in models.values()}),
        known_keys=wanted.known_keys,
        known_ids=wanted.known_ids,
        not_current=MappingProxyType({key: item for key, item in not_current.items() if key in models}),
        pending=MappingProxyType(pending),
        failures=(*wanted.problems, *(failures[key] for key in sorted(failures))),
        warnings=wanted.warnings,
        bases=wanted.bases,
        started=started,
        ready=started and served_enough,
    )


def _unknown_pin(key: Key, model_id: str, setting: str, state: RegistryState) -> LoadFailure:
    owner = f"no model of {key}" if key.symbol else "not in the registry"
    why = f"{setting} names {model_id}, which is {owner}"
    return LoadFailure(key, model_id, f"{why}; `signalserve models` lists what there is", state.revision)
