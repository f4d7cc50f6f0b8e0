"""What the server serves at one moment.

The rules:
1. A snapshot is immutable. A swap is one assignment to `ServingState.snapshot`.
2. A handler takes the reference once and uses it to the end of its call.
3. A replaced predictor lives as long as a call holds its snapshot, and no longer: nothing else keeps it.
4. `revision` is the registry revision that the snapshot was built from, whether or not every model loaded; a key
   whose new model is still being loaded, or could not be, answers with the model, and by the revision, that it had.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import NamedTuple

from signalserve.common.key import Key
from signalserve.predictors.predictor import Predictor
from signalserve.registry.basis import Basis


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A loaded model and the key that it belongs to; `row_seconds` is what one row took when it was warmed."""

    model_id: str
    key: Key
    predictor: Predictor
    pinned: bool = False
    row_seconds: float = 0.0
    stale_at: float | None = None

    def is_stale(self, now: float) -> bool:
        """Whether it is older than `ml.max_model_age` at a Unix time."""
        return self.stale_at is not None and now >= self.stale_at

    def with_pin(self, *, pinned: bool) -> ServedModel:
        """The same model, as the key's pin or not."""
        return self if self.pinned == pinned else replace(self, pinned=pinned)


@dataclass(frozen=True, slots=True)
class LoadFailure:
    """A model that could not be loaded; its key keeps the model that it had."""

    key: Key
    model_id: str
    message: str
    revision: int


class Behind(NamedTuple):
    """The model that a key should answer with and does not, and the revision that its present answers are of."""

    model_id: str
    revision: int


@dataclass(frozen=True, slots=True)
class ServingSnapshot:
    """One moment's models by key and by id, and every key and id that the registry knows.

    `not_current`: keys that are answered by the model before, as theirs could not be loaded. `pending`: keys whose new
    model is being loaded. `bases`: what models were let in on, by id. `started`: the first load of every model has
    ended, well or badly; `ready`: and some model is served if any should be.
    """

    revision: int = -1
    by_key: Mapping[Key, ServedModel] = field(default_factory=lambda: MappingProxyType({}))
    by_id: Mapping[str, ServedModel] = field(default_factory=lambda: MappingProxyType({}))
    known_keys: frozenset[Key] = frozenset()
    known_ids: Mapping[str, Key] = field(default_factory=lambda: MappingProxyType({}))
    not_current: Mapping[Key, Behind] = field(default_factory=lambda: MappingProxyType({}))
    pending: Mapping[Key, Behind] = field(default_factory=lambda: MappingProxyType({}))
    failures: tuple[LoadFailure, ...] = ()
    warnings: tuple[str, ...] = ()
    bases: Mapping[str, Basis] = field(default_factory=lambda: MappingProxyType({}))
    started: bool = False
    ready: bool = False

    @property
    def complete(self) -> bool:
        """Whether every key has the model that the registry and the pins give it."""
        return self.revision >= 0 and not self.failures and not self.pending

    def revision_of(self, key: Key) -> int:
        """The registry revision that a key's answers are of."""
        behind = self.pending.get(key) or self.not_current.get(key)
        return self.revision if behind is None else behind.revision


class ServingState:
    """Where the present snapshot is; only the watcher assigns it."""

    __slots__ = ("snapshot",)

    def __init__(self) -> None:
        self.snapshot = ServingSnapshot()
