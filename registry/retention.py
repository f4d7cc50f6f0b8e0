"""What leaves the registry, and what never does.

1. Never: the production model of a key, a pinned model, a key's rollback target and the nearer ones that a
   rollback would pass over; and by age or count none whose `created_at` can't be read.
2. Retention counts per symbol, timeframe and model_type; failed runs are counted apart, so that a streak of
   failures pushes out no good model. The entries leave the index; their folders stay until `clean`.
3. Clean drops entries whose artefacts are missing, and those that a `Selection` asks for. Folders are deleted
   only when asked, and only those that the registry knows, or once knew.
4. Each thing that is removed has an event of its own; a folder's event is written before the folder goes.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from signalserve.common.key import Key
from signalserve.registry.artifacts import run_dir, verify
from signalserve.registry.entry import ModelRegistryEntry, Status
from signalserve.registry.errors import ArtifactError, InvalidArgumentError, NotAdoptedError
from signalserve.registry.lifecycle import plan_removal
from signalserve.registry.metadata import META_FILE, ModelMetadata
from signalserve.registry.runs import BUILDING_PREFIX, is_being_built
from signalserve.registry.state import RegistryState
from signalserve.registry.store import Draft, Origin, Transaction, open_store

_ABANDONED_SECONDS = 24 * 3600.0


@dataclass(frozen=True)
class Selection:
    """Which whole entries a clean removes: those that meet every condition that is given; none given, none.

    `older_than`: by `created_at`; `keep`: beyond the newest so many of a symbol, timeframe and model_type;
    `statuses`: any but production.
    """

    older_than: timedelta | None = None
    keep: int | None = None
    statuses: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Check the values."""
        if self.keep is not None and self.keep < 0:
            raise InvalidArgumentError("keep must be 0 or more", reason="INVALID_LIMIT")
        odd = self.statuses - (set(Status) - {Status.PRODUCTION})
        if odd:
            raise InvalidArgumentError(
                f"clean removes failed, success, candidate or archived models, not {', '.join(sorted(odd))}",
                reason="INVALID_STATUS",
            )

    def find(self, state: RegistryState, now: datetime) -> dict[str, str]:
        """model_id -> why it is selected. Of failed runs the newest are counted apart."""
        if self.older_than is None and self.keep is None and not self.statuses:
            return {}
        groups: dict[tuple[Key, str, bool], list[ModelRegistryEntry]] = {}
        for entry in state.entries.values():
            if not self.statuses or entry.status in self.statuses:
                groups.setdefault(_peers(entry), []).append(entry)
        found: dict[str, str] = {}
        for peers in groups.values():
            for entry in _newest_first(peers)[self.keep or 0 :]:
                if self.older_than is None or now - entry.created > self.older_than:
                    found[entry.model_id] = self._why(entry, now)
        return found

    @property
    def by_age(self) -> bool:
        """Whether it asks how old a model is."""
        return self.older_than is not None or self.keep is not None

    def _why(self, entry: ModelRegistryEntry, now: datetime) -> str:
        texts = [entry.status]
        if not entry.is_dated:
            texts.append(f"of unknown age (created_at is {entry.created_at!r})")
        elif self.older_than is not None:
            texts.append(f"{(now - entry.created).days} days old")
        if self.keep is not None:
            texts.append(f"beyond the newest {self.keep}")
        return ", ".join(texts)


@dataclass(frozen=True)
class CleanPlan:
    """What a clean does: entries to drop with the reason, and folders to delete."""

    entries: dict[str, str]
    folders: tuple[Path, ...]
    kept: dict[str, str]

    def within(self, other: CleanPlan) -> CleanPlan:
        """What of this plan is in another one, too."""
        entries = {model_id: why for model_id, why in self.entries.items() if model_id in other.entries}
        folders = tuple(folder for folder in self.folders if folder in other.folders)
        return CleanPlan(entries, folders, self.kept)


def protected(
    base_dir: Path, state: RegistryState, pins: Collection[str], keys: Collection[Key]
) -> dict[str, str]:
    """model_id -> why it must stay: of the earlier production models all up to the first that verifies."""
    reasons = dict.fromkeys(pins, "pinned in the configuration")
    for key in keys:
        for model_id in state.rollback_targets(key):
            reasons[model_id] = f"rollback target of {key}"
            if _verifies(base_dir, state, model_id):
                break
        for model_id in state.production_rows(key):
            reasons[model_id] = f"in production for {key}"
    return reasons


def _verifies(base_dir: Path, state: RegistryState, model_id: str) -> bool:
    try:
        verify(base_dir, state.entries[model_id], state.digests.get(model_id, ""))
    except (ArtifactError, NotAdoptedError):
        return False
    return True


def _peers(entry: ModelRegistryEntry) -> tuple[Key, str, bool]:
    """What entries are counted by: the key, the model_type, and whether the run failed."""
    return entry.key, entry.model_type.casefold(), entry.status == Status.FAILED


def retain(
    transaction: Transaction, base_dir: Path, newest: ModelRegistryEntry, keep: int, pins: Collection[str]
) -> list[str]:
    """Drop the oldest entries beyond `keep` of the new entry's symbol, timeframe and model_type."""
    state = transaction.state
    peers = [entry for entry in state.entries.values() if _peers(entry) == _peers(newest)]
    surplus = _newest_first(peers)[keep:]
    if surplus:
        stays = {newest.model_id, *protected(base_dir, state, pins, [newest.key])}
        surplus = [entry for entry in surplus if entry.model_id not in stays and entry.is_dated]
    if surplus:
        _remove(
            transaction,
            "retention",
            base_dir,
            {entry.model_id: f"beyond the newest {keep}" for entry in surplus},
        )
    return [entry.model_id for entry in surplus]


def _newest_first(entries: Iterable[ModelRegistryEntry]) -> list[ModelRegistryEntry]:
    numbered = sorted(enumerate(entries), key=lambda item: (item[1].created, item[0]), reverse=True)
    return [entry for _, entry in numbered]


def plan_clean(
    base_dir: Path | str,
    pins: Collection[str],
    *,
    selection: Selection = Selection(),
    delete_dirs: bool = False,
) -> CleanPlan:
    """What `clean` would do now."""
    state = open_store(base_dir).view(wait=True).state
    return _plan(Path(base_dir), state, pins, selection, delete_dirs=delete_dirs)


def clean(
    base_dir: Path | str,
    pins: Collection[str],
    *,
    selection: Selection = Selection(),
    delete_dirs: bool = False,
    confirmed: CleanPlan | None = None,
    actor: str = "",
    via: str = "python",
    reason: str = "",
) -> CleanPlan:
    """Drop entries whose artefacts are missing, and the selected ones; with `delete_dirs`, also their folders.

    Nothing goes that is not in the `confirmed` plan, whatever has happened to the registry since it was shown.
    Gives what was done.
    """
    base = Path(base_dir)
    with open_store(base).transaction(Origin(actor, via, reason)) as transaction:
        plan = _plan(base, transaction.state, pins, selection, delete_dirs=delete_dirs)
        if confirmed is not None:
            plan = plan.within(confirmed)
        _remove(transaction, "clean", base, plan.entries)
        for folder in plan.folders:
            transaction.commit(Draft("delete_dir", (), {"folder": folder.name}))
            shutil.rmtree(folder)
    return plan


def _plan(
    base: Path, state: RegistryState, pins: Collection[str], selection: Selection, *, delete_dirs: bool
) -> CleanPlan:
    stays = protected(base, state, pins, state.keys())
    entries: dict[str, str] = {}
    kept: dict[str, str] = {}
    selected = selection.find(state, datetime.now(UTC))
    for entry in state.entries.values():
        missing = _missing(base, entry)
        why = missing or selected.get(entry.model_id)
        if why is None:
            continue
        if not missing and not entry.is_dated and selection.by_age:
            kept[entry.model_id] = why
        elif entry.model_id in stays:
            kept[entry.model_id] = f"{why}, but it is {stays[entry.model_id]}"
        else:
            entries[entry.model_id] = why
    folders = _folders(base, state, entries, stays) if delete_dirs else ()
    return CleanPlan(entries, folders, kept)


def _missing(base: Path, entry: ModelRegistryEntry) -> str | None:
    """Why an entry's artefacts count as missing. A file that is there but wrong is for people to look at."""
    folder = run_dir(base, entry)
    if not folder.is_dir():
        return f"{folder} is missing"
    if entry.status != Status.FAILED and not (folder / "model.joblib").is_file():
        return f"{folder / 'model.joblib'} is missing"
    return None


def _folders(
    base: Path, state: RegistryState, dropped: Collection[str], stays: Collection[str]
) -> tuple[Path, ...]:
    found: list[Path] = []
    for folder in sorted(base.iterdir()) if base.is_dir() else []:
        if folder.is_symlink() or not folder.is_dir():
            continue
        known_before = folder.name in state.used_ids and folder.name not in {*state.entries, *stays}
        abandoned = (
            folder.name.startswith(BUILDING_PREFIX)
            and time.time() - folder.stat().st_mtime > _ABANDONED_SECONDS
            and not is_being_built(folder)
        )
        if folder.name in dropped or known_before or abandoned:
            found.append(folder)
    return tuple(found)


def _remove(transaction: Transaction, action: str, base: Path, why: dict[str, str]) -> None:
    state = transaction.state
    metadata: dict[str, Any] = {}
    for model_id in why:
        try:
            metadata[model_id] = ModelMetadata.read(
                run_dir(base, state.entries[model_id]) / META_FILE
            ).to_dict()
        except ArtifactError:
            metadata[model_id] = None
    for model_id, reason in why.items():
        draft = plan_removal(transaction.state, action, [model_id], metadata, {model_id: reason})
        transaction.commit(draft, follows=True)
