"""What leaves the registry, and what never does.

1. Never: the production model of a key, the one that was decided on, a pinned model, a key's rollback target and the
   nearer ones that a rollback would pass over, whether hand edits are held or not; and by age or count none whose
   `created_at` can't be read.
2. Retention counts per symbol, timeframe and model_type; failed runs are counted apart, so that a streak of
   failures pushes out no good model. The entries leave the index, and their folders go with them.
3. Clean drops entries whose artefacts are missing, and those that a `Selection` asks for. Folders are deleted
   only when asked, and only models' own (`registry/folders.py`), of those that the registry knows or once knew. A
   rollback target whose artefacts are missing goes too, since no rollback leads there.
4. Each entry that is removed has an event of its own, which speaks for its folder where a retention removes it; each
   folder that a clean deletes has another. Events come before what they speak of goes.
5. Models are hashed before the lock is taken, and folders deleted after it was let go.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from signalserve.common.files import is_folder
from signalserve.common.key import Key
from signalserve.common.log import LibraryLog
from signalserve.common.moments import utc_now
from signalserve.predictors.manifest import MODEL_FILE
from signalserve.registry.entry import ModelRegistryEntry, Status, newest_first
from signalserve.registry.errors import ArtefactError, NotAdoptedError, StorageError
from signalserve.registry.events import Action
from signalserve.registry.folders import delete_folders, reasons_to_stay
from signalserve.registry.metadata import META_FILE, ModelMetadata
from signalserve.registry.parts import Parts
from signalserve.registry.plans import plan_removal
from signalserve.registry.runs import BUILDING_PREFIX, is_being_built
from signalserve.registry.selection import NOTHING_WHOLE, CleanPlan, Selection, peers_of
from signalserve.registry.state import RegistryState
from signalserve.registry.store import Draft, Origin, Transaction

_log = LibraryLog("registry")

_ABANDONED_SECONDS = 24 * 3600.0

# (model_id, digest) -> whether it verifies: what was hashed before the lock is not hashed under it
Verified = dict[tuple[str, str], bool]


def _peers_of(state: RegistryState, newest: ModelRegistryEntry) -> list[ModelRegistryEntry]:
    return [entry for entry in state.entries.values() if peers_of(entry) == peers_of(newest)]


@dataclass(frozen=True)
class Retained:
    """What a retention dropped, and what it spared though it is beyond the limit; each with the reason."""

    dropped: dict[str, str] = field(default_factory=dict)
    spared: dict[str, str] = field(default_factory=dict)


class Retention(Parts):
    """Removes entries and folders."""

    def plan_clean(self, selection: Selection = NOTHING_WHOLE, *, delete_dirs: bool = False) -> CleanPlan:
        """What `clean` would do now."""
        return self._plan(self.store.view(wait=True).state, selection, {}, delete_dirs=delete_dirs)[0]

    def clean(
        self,
        selection: Selection = NOTHING_WHOLE,
        *,
        delete_dirs: bool = False,
        confirmed: CleanPlan | None = None,
        actor: str = "",
        via: str = "python",
        reason: str = "",
    ) -> CleanPlan:
        """Drop entries whose artefacts are missing, and the selected ones; with `delete_dirs`, also their folders.

        Nothing goes that is not in the `confirmed` plan, whatever has happened to the registry since it was shown.
        Gives what was done; a folder that could not be deleted is among what is kept.
        """
        verified: Verified = {}
        self.protected(self.state, self.state.keys(), verified)
        with self.store.transaction(Origin(actor, via, reason)) as transaction:
            plan, stays = self._plan(transaction.state, selection, verified, delete_dirs=delete_dirs)
            if confirmed is not None:
                plan = plan.within(confirmed)
            self._remove(transaction, Action.CLEAN, plan.entries, stays)
            for folder in plan.folders:
                transaction.commit(Draft(Action.DELETE_DIR, (), {"folder": folder.name}))
        left = delete_folders(self.artefacts, [folder.name for folder in plan.folders], self.state)
        return replace(
            plan,
            folders=tuple(folder for folder in plan.folders if folder.name not in left),
            kept=plan.kept | {name: f"its folder could not be deleted: {why}" for name, why in left.items()},
        )

    def foresee(self, state: RegistryState, newest: ModelRegistryEntry, keep: int) -> Verified:
        """Hash before the lock is taken what `retain` will ask of."""
        verified: Verified = {}
        if len(_peers_of(state, newest)) >= keep:
            self.protected(state, [newest.key], verified)
        return verified

    def retain(
        self, transaction: Transaction, newest: ModelRegistryEntry, keep: int, verified: Verified
    ) -> Retained:
        """Drop the oldest entries beyond `keep` of the new entry's symbol, timeframe and model_type.

        Their folders are `delete_retired`'s, once the lock is free.
        """
        state = transaction.state
        surplus = newest_first(_peers_of(state, newest))[keep:]
        if not surplus:
            return Retained()
        stays = self.protected(state, [newest.key], verified)
        stays.setdefault(newest.model_id, "the one that was registered")
        for entry in surplus:
            if not entry.is_dated:
                stays.setdefault(entry.model_id, f"of unknown age (created_at is {entry.created_at!r})")
        why = f"beyond the newest {keep}"
        dropped = {entry.model_id: why for entry in surplus if entry.model_id not in stays}
        self._remove(transaction, Action.RETENTION, dropped, stays)
        return Retained(
            dropped, {entry.model_id: stays[entry.model_id] for entry in surplus if entry.model_id in stays}
        )

    def delete_retired(self, retained: Retained) -> None:
        """Delete the folders of what a retention has dropped, and say in the log what went and what stays.

        Call it without the lock. What it can't delete is said and no error: the registration has been committed.
        """
        if not retained.dropped and not retained.spared:
            return
        try:
            left = delete_folders(self.artefacts, retained.dropped, self.state)
        except StorageError as error:  # it has gone just now
            left = dict.fromkeys(retained.dropped, str(error))
        _log.info(
            "registry.retention",
            removed=list(retained.dropped),
            spared=retained.spared,
            folders_left=left,
        )
        for model_id, why in left.items():
            _log.warning("registry.folder_not_deleted", model_id=model_id, why=why)

    def protected(
        self, state: RegistryState, keys: Collection[Key], verified: Verified | None = None
    ) -> dict[str, str]:
        """model_id -> why it must stay: of the earlier production models all up to the first that verifies.

        `verified`: what was hashed already; what is hashed now is added.
        """
        verified = {} if verified is None else verified
        reasons: dict[str, str] = {}
        for key in keys:
            for hold in (False, True):
                for model_id in state.rollback_targets(key, hold=hold):
                    reasons[model_id] = f"rollback target of {key}"
                    if self._verifies(state, model_id, verified):
                        break
        reasons |= {
            model_id: f"decided on as production of {key}"
            for key, model_id in state.decided.items()
            if model_id != state.production(key)
        }
        reasons |= dict.fromkeys(self.pins, "pinned in the configuration")
        for key in keys:
            for model_id in state.production_rows(key):
                reasons[model_id] = f"in production for {key}"
        return reasons

    def _verifies(self, state: RegistryState, model_id: str, verified: Verified) -> bool:
        known = (model_id, state.digests.get(model_id, ""))
        if known not in verified:
            try:
                self.artefact_of(state, model_id).verify()
                verified[known] = True
            except (ArtefactError, NotAdoptedError):
                verified[known] = False
        return verified[known]

    def _plan(
        self, state: RegistryState, selection: Selection, verified: Verified, *, delete_dirs: bool
    ) -> tuple[CleanPlan, dict[str, str]]:
        """The plan, and what must stay with the reason."""
        stays = self.protected(state, state.keys(), verified)
        entries: dict[str, str] = {}
        kept: dict[str, str] = {}
        selected = selection.find(state, utc_now())
        for entry in state.entries.values():
            missing = self._missing(entry)
            why = missing or selected.get(entry.model_id)
            if why is None:
                continue
            is_target = (
                entry.model_id not in self.pins
                and entry.status != Status.PRODUCTION
                and entry.model_id != state.decision(entry.key)
            )
            if missing and entry.model_id in stays and is_target:
                entries[entry.model_id] = (
                    f"{why}; it was a {stays.pop(entry.model_id)}, and can't be rolled back to"
                )
            elif not missing and not entry.is_dated and selection.by_age:
                kept[entry.model_id] = why
            elif entry.model_id in stays:
                kept[entry.model_id] = f"{why}, but it is {stays[entry.model_id]}"
            else:
                entries[entry.model_id] = why
        folders: tuple[Path, ...] = ()
        if delete_dirs:
            found = self._folders(state, entries, stays)
            spared = reasons_to_stay(self.artefacts, [folder.name for folder in found], state, entries)
            folders = tuple(folder for folder in found if folder.name not in spared)
            kept |= {name: f"its folder stays: {why}" for name, why in spared.items()}
            kept |= self._elsewhere(state, entries)
        return CleanPlan(entries, folders, kept), stays

    def _missing(self, entry: ModelRegistryEntry) -> str | None:
        """Why an entry's artefacts count as missing. A file that is there but wrong is for people to look at."""
        artefact = self.artefacts.of(entry, "")
        if not is_folder(artefact.folder):
            return f"{artefact.folder} is missing"
        if entry.status != Status.FAILED and not artefact.has(MODEL_FILE):
            return f"{artefact.folder / MODEL_FILE} is missing"
        return None

    def _elsewhere(self, state: RegistryState, dropped: Collection[str]) -> dict[str, str]:
        """Why the folders of dropped models that lie elsewhere stay."""
        found = {model_id: self.artefacts.folder(state.entries[model_id]) for model_id in dropped}
        return {
            model_id: f"its folder is {folder}, which stays"
            for model_id, folder in found.items()
            if folder != self.artefacts.base_dir / model_id
        }

    def _folders(
        self, state: RegistryState, dropped: Collection[str], stays: Collection[str]
    ) -> tuple[Path, ...]:
        found: list[Path] = []
        base = self.artefacts.base_dir
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

    def _remove(
        self, transaction: Transaction, action: Action, why: Mapping[str, str], protected: Mapping[str, str]
    ) -> None:
        for model_id, reason in why.items():
            try:
                # whatever it says, of another model too: this may be the last copy
                folder = self.artefact_of(transaction.state, model_id).folder
                metadata = ModelMetadata.read(folder / META_FILE).to_dict()
            except ArtefactError:
                metadata = None
            draft = plan_removal(
                transaction.state, action, model_id, metadata=metadata, why=reason, protected=protected
            )
            transaction.commit(draft, follows=True)
