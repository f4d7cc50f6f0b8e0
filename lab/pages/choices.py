"""The keys of a registry, as pages offer them: each with its champion and the newest model that could replace it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from signalserve.common.key import Key
from signalserve.registry import ModelRegistryEntry, Registry, Status

_MAY_CHALLENGE = (Status.CANDIDATE, Status.SUCCESS)


@dataclass(frozen=True)
class KeyChoice:
    """A key; `challenger` is its newest candidate, else its newest success; empty where there is none."""

    key: Key
    champion: str
    challenger: str
    models: tuple[str, ...]


def choices_of(registry: Registry) -> tuple[KeyChoice, ...]:
    """Every key that has a model now, in order; models newest first."""
    state = registry.state
    by_key: dict[Key, list[ModelRegistryEntry]] = {}
    for entry in state.entries.values():
        by_key.setdefault(entry.key, []).append(entry)
    return tuple(
        _choice(key, by_key[key], registry.standing(state, key) or "", state.quarantined)
        for key in sorted(by_key)
    )


def _choice(
    key: Key, entries: list[ModelRegistryEntry], champion: str, quarantined: Collection[str]
) -> KeyChoice:
    newest = sorted(entries, key=lambda entry: (entry.created, entry.model_id), reverse=True)
    waiting = [
        entry.model_id
        for status in _MAY_CHALLENGE
        for entry in newest
        if entry.status == status and entry.model_id not in quarantined and entry.model_id != champion
    ]
    usable = tuple(entry.model_id for entry in newest if entry.status != Status.FAILED)
    return KeyChoice(key, champion, waiting[0] if waiting else "", usable)
