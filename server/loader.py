"""From a registry view to the next snapshot: opens what is new, keeps what is unchanged."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import structlog

from signalserve.common.key import Key
from signalserve.predictors.errors import NonFiniteScoreError
from signalserve.predictors.predictor import Predictor
from signalserve.registry.artefact import Artefacts, Proof
from signalserve.registry.entry import ModelRegistryEntry, Status
from signalserve.registry.errors import RegistryError, UnknownModelError
from signalserve.registry.index import INDEX_FILE
from signalserve.registry.queries import warnings_of
from signalserve.registry.state import RegistryState
from signalserve.registry.store import View
from signalserve.server.errors import NothingToServeError
from signalserve.server.limits import ModelChoice
from signalserve.server.snapshot import LoadFailure, ServedModel, ServingSnapshot

_LOADERS = 2

_log = structlog.get_logger("server")


class Loader:
    """Builds snapshots. Its methods block; call them from a worker thread."""

    def __init__(self, artefacts: Artefacts, choice: ModelChoice) -> None:
        self._artefacts = artefacts
        self._choice = choice
        self._proven: dict[tuple[str, str], Predictor] = {}

    @contextmanager
    def ahead(self) -> Iterator[Callable[[str, Proof], None]]:
        """A promote or rollback, and the build that it causes: what the one proves, the other need not open again."""
        mine: list[tuple[str, str]] = []
        over = False

        def forget() -> None:
            for name in mine:
                self._proven.pop(name, None)

        def keep(model_id: str, proof: Proof) -> None:
            if proof.predictor is None:
                return
            mine.append((model_id, proof.predictor.digest))
            self._proven[mine[-1]] = proof.predictor
            if over:  # the caller has gone, and the thread that works for it goes on
                forget()

        try:
            yield keep
        finally:
            over = True
            forget()

    def build(self, view: View, previous: ServingSnapshot) -> ServingSnapshot:
        """The snapshot of a view. A model that fails to load leaves its key with the one that it had."""
        state = view.state
        wanted, pinned, failures = self._wanted(state)
        by_key: dict[Key, ServedModel] = {}
        new: list[Key] = []
        for key, model_id in wanted.items():
            old = _unchanged(key, model_id, state.digests.get(model_id, ""), previous)
            if old is None:
                new.append(key)
            else:
                by_key[key] = old if old.pinned == (key in pinned) else replace(old, pinned=key in pinned)

        def load(key: Key) -> ServedModel | LoadFailure:
            return self._load(key, wanted[key], state, previous, pinned=key in pinned)

        for key, result in zip(new, _each(load, new), strict=True):
            if isinstance(result, ServedModel):
                by_key[key] = result
            else:
                failures.append(result)
        not_current: dict[Key, str] = {}
        for failure in failures:
            old = previous.by_key.get(failure.key)
            if old is not None and failure.key not in by_key:
                by_key[failure.key] = old
                not_current[failure.key] = failure.model_id
        return ServingSnapshot(
            revision=state.revision,
            by_key=MappingProxyType(by_key),
            by_id=MappingProxyType({served.model_id: served for served in by_key.values()}),
            known_keys=frozenset(state.keys()),
            known_ids=MappingProxyType({entry.model_id: entry.key for entry in state.entries.values()}),
            not_current=MappingProxyType(not_current),
            failures=tuple(failures),
            warnings=tuple(warnings_of(view, index=INDEX_FILE)),
        )

    def load_by_id(self, state: RegistryState, model_id: str) -> ServedModel:
        """Open one model that a request named.

        Raises:
            UnknownModelError, NothingToServeError, RegistryError: it is not there, or can't be served.
        """
        entry = state.entries.get(model_id)
        if entry is None:
            raise UnknownModelError(model_id)
        if entry.status == Status.FAILED:
            raise NothingToServeError(
                "MODEL_NOT_SERVABLE",
                f"{model_id} is a failed training run",
                field="model_id",
                metadata={"model_id": model_id},
            )
        return self._open(entry, state, pinned=True)

    def _wanted(self, state: RegistryState) -> tuple[dict[Key, str], set[Key], list[LoadFailure]]:
        """The model_id of each key, the keys whose model is a pin, and the pins that are wrong."""
        wanted, pinned = state.productions(), set[Key]()
        failures: list[LoadFailure] = []
        for_its_key = self._choice.for_its_key
        if for_its_key is not None:
            entry = state.entries.get(for_its_key)
            if entry is not None:
                wanted[entry.key] = entry.model_id
                pinned.add(entry.key)
            else:
                failures.append(_unknown_pin(Key("", ""), for_its_key, "ml.production_model", state))
        for key, model_id in self._choice.pins.items():
            entry = state.entries.get(model_id)
            if entry is not None and entry.key == key:
                wanted[key] = model_id
                pinned.add(key)
            else:
                wanted.pop(key, None)  # a wrong pin serves nothing rather than something else
                failures.append(_unknown_pin(key, model_id, f"ml.pins[{str(key)!r}]", state))
        return wanted, pinned, failures

    def _load(
        self, key: Key, model_id: str, state: RegistryState, previous: ServingSnapshot, *, pinned: bool
    ) -> ServedModel | LoadFailure:
        try:
            return self._open(state.entries[model_id], state, pinned=pinned)
        except Exception as error:  # noqa: BLE001 - whatever it is, the old model goes on serving
            if not isinstance(error, RegistryError):
                _log.error("model.load_crashed", model_id=model_id, exc_info=error)
            failure = LoadFailure(key, model_id, str(error) or type(error).__name__, state.revision)
            if failure_is_new(failure, previous):
                _log.warning("model.load_failed", key=str(key), model_id=model_id, why=failure.message)
            return failure

    def _open(self, entry: ModelRegistryEntry, state: RegistryState, *, pinned: bool) -> ServedModel:
        started = time.perf_counter()
        digest = state.digests.get(entry.model_id, "")
        predictor = self._proven.get((entry.model_id, digest))
        if predictor is None:
            predictor = self._artefacts.of(entry, digest).open(unpickle=self._choice.unpickle)
        row_seconds = _warm(predictor)
        _log.info(
            "model.loaded",
            key=str(entry.key),
            model_id=entry.model_id,
            engine=predictor.engine,
            digest=predictor.digest[:12],
            seconds=round(time.perf_counter() - started, 3),
            **({"engine_reason": predictor.engine_reason} if predictor.engine_reason else {}),
        )
        return ServedModel(
            entry.model_id,
            entry.key,
            predictor,
            since_revision=state.revision,
            pinned=pinned,
            row_seconds=row_seconds,
            stale_at=self._stale_at(entry),
        )

    def _stale_at(self, entry: ModelRegistryEntry) -> float | None:
        """Unix time from which a model is stale; one that does not say when it was made is so at once."""
        age = self._choice.max_age
        return None if age is None else entry.created.timestamp() + age.total_seconds()


def _unchanged(key: Key, model_id: str, digest: str, previous: ServingSnapshot) -> ServedModel | None:
    """The loaded model of that id, where its artefact is still the registered one."""
    for old in (previous.by_key.get(key), previous.by_id.get(model_id)):
        if old is not None and old.model_id == model_id and old.predictor.digest == digest and digest:
            return old
    return None


def _each(
    load: Callable[[Key], ServedModel | LoadFailure], keys: list[Key]
) -> list[ServedModel | LoadFailure]:
    if len(keys) <= 1:  # a promote's usual case
        return [load(key) for key in keys]
    with ThreadPoolExecutor(_LOADERS, thread_name_prefix="model-loader") as pool:
        return list(pool.map(load, keys))


def failure_is_new(failure: LoadFailure, previous: ServingSnapshot) -> bool:
    """Whether the previous snapshot did not have this failure; a retry repeats no log line."""
    return not any(
        old.model_id == failure.model_id and old.message == failure.message for old in previous.failures
    )


def _unknown_pin(key: Key, model_id: str, setting: str, state: RegistryState) -> LoadFailure:
    owner = f"no model of {key}" if key.symbol else "not in the registry"
    why = f"{setting} names {model_id}, which is {owner}"
    return LoadFailure(key, model_id, f"{why}; `signalserve models` lists what there is", state.revision)


def _warm(predictor: Predictor) -> float:
    """Answer one row a few times; the best time in seconds."""
    low = predictor.feature_min
    row = np.zeros((1, len(predictor.feature_names))) if low is None else np.nan_to_num(low).reshape(1, -1)
    best = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        with suppress(NonFiniteScoreError):  # a row that was made up; a request with it is told
            predictor.predict(row)
        best = min(best, time.perf_counter() - started)
    return best
