"""Which engine serves a model, by the log alone: the event that took its digest says so, and no file is opened."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from signalserve.lab.plain import text_of
from signalserve.registry import ModelRegistryEntry, Status
from signalserve.registry.events import Event
from signalserve.registry.store import View


class Engine(NamedTuple):
    """The engine that serves a model, as its registration found; the reason says why no faster one."""

    name: str
    reason: str


def engines_of(events: Iterable[Event]) -> dict[str, Engine]:
    """The engine of every model whose digest was taken, as the log has it."""
    found: dict[str, Engine] = {}
    for event in events:
        if "engine" in event.detail:
            for change in event.changes:
                found[change.model_id] = Engine(
                    text_of(event.detail["engine"]), text_of(event.detail.get("engine_reason"))
                )
    return found


def engine_of(entry: ModelRegistryEntry, view: View, engines: Mapping[str, Engine]) -> Engine:
    """A model's engine without a look at its files; `legacy` where no digest was taken."""
    if entry.status == Status.FAILED:
        return Engine("", "")
    if not view.state.digests.get(entry.model_id):
        return Engine("legacy", "")
    return engines.get(entry.model_id, Engine("", ""))
