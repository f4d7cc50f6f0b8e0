"""What a clean is asked for, and what it does: which entries go, which folders."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from signalserve.common.key import Key
from signalserve.registry.entry import ModelRegistryEntry, Status, newest_first
from signalserve.registry.errors import InvalidArgumentError
from signalserve.registry.state import RegistryState


def peers_of(entry: ModelRegistryEntry) -> tuple[Key, str, bool]:
    """What entries are counted by: the key, the model_type, and whether the run failed."""
    return entry.key, entry.model_type.casefold(), entry.status == Status.FAILED


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
                groups.setdefault(peers_of(entry), []).append(entry)
        found: dict[str, str] = {}
        for peers in groups.values():
            for entry in newest_first(peers)[self.keep or 0 :]:
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


NOTHING_WHOLE = Selection()  # no whole entry goes


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
