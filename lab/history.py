"""A key's past: every model that was trained for it, which was in production when, and every decision.

1. It is told by the log alone, so what was deleted since is still in it.
2. A band ends where the log says that its model left production; a production that the log never saw begin (a row set
   by hand before any log) begins with None.
3. A mark is a decision on the key: promote, rollback, archive of the production model, a refusal (an evaluation that
   the gate failed), or an edit of the index from outside.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from signalserve.common.key import Key
from signalserve.lab.files import Kept, read_object, signature
from signalserve.lab.grids import Grid, grids_of
from signalserve.lab.plain import mapping, moment, number, plain, text_of
from signalserve.lab.trail import Trail
from signalserve.lab.verdicts import failed_names
from signalserve.registry import ModelRegistryEntry, Registry
from signalserve.registry.events import Action, Event
from signalserve.registry.metadata import META_FILE

DELETED = "deleted"
MOST_METRICS = 500
"""Of so many of a key's newest models the metrics are read from their files; the others have the index's alone."""


@dataclass(frozen=True)
class Retrain:
    """One model of the key; `status` is `deleted` where it has left the index. `metrics` are those of its test span."""

    model_id: str
    model_type: str
    created_at: datetime | None
    status: str
    sharpe: float | None
    cum_return: float | None
    quarantined: bool
    by_hand: bool
    metrics: Mapping[str, Any]


@dataclass(frozen=True)
class Band:
    """A model in production from `start` (None: since before the log) to `end` (None: still)."""

    model_id: str
    start: datetime | None
    end: datetime | None
    revision: int | None
    action: str


@dataclass(frozen=True)
class Mark:
    """A decision. `kind`: `promote`, `rollback`, `archive`, `refusal` or `external_edit`."""

    kind: str
    time: datetime | None
    revision: int
    model_id: str
    previous_model_id: str
    actor: str
    reason: str
    forced: bool
    failed: tuple[str, ...]


@dataclass(frozen=True)
class History:
    """A key's past; models, bands and marks oldest first, grids newest first."""

    symbol: str
    timeframe: str
    production: str
    models: tuple[Retrain, ...]
    bands: tuple[Band, ...]
    marks: tuple[Mark, ...]
    grids: tuple[Grid, ...]


class Histories:
    """The past of each key of one registry."""

    def __init__(self, registry: Registry, trail: Trail) -> None:
        self._registry = registry
        self._trail = trail
        self._metrics: Kept[Mapping[str, Any]] = Kept(10_000)

    def every_key(self) -> tuple[Key, ...]:
        """Every key that has or had a model, in order.

        Raises:
            StorageError: the registry can't be read.
        """
        known = set(self._registry.state.keys())
        for event in self._trail.events():
            known |= {Key(change.symbol, change.timeframe) for change in event.changes}
        return tuple(sorted(known))

    def of(self, symbol: str, timeframe: str) -> History | None:
        """A key's past; None where it never had a model.

        Raises:
            StorageError: the registry can't be read.
        """
        key = Key(symbol, timeframe)
        state = self._registry.state
        events = [event for event in self._trail.events() if event.is_about(symbol, timeframe, "")]
        known = _entries(events, key)
        known |= {entry.model_id: entry for entry in state.entries.values() if entry.key == key}
        base = self._registry.artefacts.base_dir
        if not known and not events:
            return None
        ordered = sorted(known.values(), key=lambda entry: (entry.created, entry.model_id))
        with_files = {entry.model_id for entry in ordered[-MOST_METRICS:] if entry.model_id in state.entries}
        models = tuple(
            Retrain(
                model_id=entry.model_id,
                model_type=text_of(entry.model_type),
                created_at=entry.created if entry.is_dated else None,
                status=entry.status if entry.model_id in state.entries else DELETED,
                sharpe=number(entry.sharpe),
                cum_return=number(entry.cum_return),
                quarantined=entry.model_id in state.quarantined,
                by_hand=entry.model_id in state.entries
                and state.is_by_hand(entry.model_id, hold=self._registry.holds_hand_edits),
                metrics=self._metrics_of(entry) if entry.model_id in with_files else {},
            )
            for entry in ordered
        )
        production = self._registry.standing(state, key) or ""
        return History(
            symbol=symbol,
            timeframe=timeframe,
            production=production,
            models=models,
            bands=_bands(events, key, production),
            marks=tuple(_marks(events, key)),
            grids=grids_of(base, symbol, timeframe),
        )

    def _metrics_of(self, entry: ModelRegistryEntry) -> Mapping[str, Any]:
        path = self._registry.artefacts.folder(entry) / META_FILE
        return self._metrics.get((path, signature(path)), lambda: _metrics(path))


def _metrics(path: Path) -> Mapping[str, Any]:
    found = mapping((read_object(path).value or {}).get("metrics"))
    return {text_of(name): number(value) for name, value in found.items()}


def _entries(events: Iterable[Event], key: Key) -> dict[str, ModelRegistryEntry]:
    """The rows that the log has of a key's models, those that were deleted included."""
    found: dict[str, ModelRegistryEntry] = {}
    for event in events:
        removed = (mapping(item).get("entry") for item in event.detail.get("removed", ()))
        for row in (*event.detail.get("entries", ()), *removed):
            try:
                entry = ModelRegistryEntry.from_row(row)
            except (AttributeError, KeyError, TypeError, ValueError):
                continue
            if entry.key == key:
                found[entry.model_id] = entry
    return found


def _bands(events: Iterable[Event], key: Key, production: str) -> tuple[Band, ...]:
    done: list[Band] = []
    open_bands: dict[str, Band] = {}
    for event in events:
        time = moment(event.time)
        mine = [change for change in event.changes if (change.symbol, change.timeframe) == key]
        for change in mine:
            if change.after != "production" and change.before == "production":
                began = open_bands.pop(change.model_id, None)
                band = began or Band(change.model_id, None, None, None, "")
                done.append(replace(band, end=time))
        for change in mine:
            if change.after == "production" and change.model_id not in open_bands:
                # a model that was in production before the log began is only known to have been
                start = None if event.action == Action.EXTERNAL_EDIT and event.revision == 1 else time
                open_bands[change.model_id] = Band(
                    change.model_id, start, None, event.revision, text_of(event.action)
                )
    for model_id, band in open_bands.items():
        if model_id == production:
            done.append(band)
    if production and production not in open_bands:
        done.append(Band(production, None, None, None, ""))
    return tuple(done)


def _marks(events: Iterable[Event], key: Key) -> Iterable[Mark]:
    for event in events:
        mine = [
            change
            for change in event.changes
            if (change.symbol, change.timeframe) == key and change.before != change.after
        ]
        raised = next((item.model_id for item in mine if item.after == "production"), "")
        left = next((item.model_id for item in mine if item.before == "production"), "")
        evidence = mapping(event.evidence)
        if event.action in (Action.PROMOTE, Action.ROLLBACK) and raised:
            decisions = [mapping(item) for item in evidence.get("decisions", ())]
            record = next((item for item in decisions if item.get("challenger") == raised), {})
            yield _mark(event, str(event.action), raised, left, failed_names(record))
        elif event.action == Action.ARCHIVE and left:
            yield _mark(event, "archive", left, "", ())
        elif event.action == Action.EXTERNAL_EDIT and (raised or left):
            yield _mark(event, "external_edit", raised, left, ())
        elif event.action == Action.EVALUATE and (failed := failed_names(evidence)):
            challenger, champion = text_of(evidence.get("challenger")), text_of(evidence.get("champion"))
            yield _mark(event, "refusal", challenger, champion, failed)


def _mark(event: Event, kind: str, model_id: str, previous: str, failed: tuple[str, ...]) -> Mark:
    return Mark(
        kind=kind,
        time=moment(event.time),
        revision=event.revision,
        model_id=plain(model_id),
        previous_model_id=plain(previous),
        actor=text_of(event.actor),
        reason=text_of(event.reason),
        forced=event.forced,
        failed=failed,
    )
