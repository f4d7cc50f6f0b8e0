"""From an entry of the registry to a model that is served: opened, proven, warm. Everything here blocks."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import structlog

from signalserve.predictors.errors import BrokenScoresError
from signalserve.predictors.predictor import Predictor
from signalserve.registry.artefact import Artefact, Artefacts
from signalserve.registry.entry import ModelRegistryEntry, Status
from signalserve.registry.errors import ArtefactError, RegistryError, UnknownModelError
from signalserve.registry.state import RegistryState
from signalserve.server.errors import NothingToServeError
from signalserve.server.limits import ModelChoice
from signalserve.server.snapshot import ServedModel

_log = structlog.get_logger("server")


class Loader:
    """Opens models; call it from a worker thread."""

    def __init__(self, artefacts: Artefacts, choice: ModelChoice, check: Callable[[], object]) -> None:
        """`check` raises where the registry has gone."""
        self._check = check
        self._artefacts = artefacts
        self._choice = choice

    def open(self, entry: ModelRegistryEntry, digest: str, not_servable: str) -> ServedModel:
        """A model as it is registered; `not_servable` is what the registry says against it.

        Raises:
            RegistryError: it is not what was registered, or can't be opened.
            Exception: whatever a model's own code raises.
        """
        return self._open(self._artefacts.of(entry, digest, not_servable))

    def prove(self, artefact: Artefact) -> ServedModel:
        """As `open`, and every file of it is checked, those included that nobody opens.

        Raises:
            ArtefactError, NotAdoptedError: it could not be served.
        """
        try:
            served = self._open(artefact)
        except RegistryError:
            raise
        except Exception as error:  # the model's own code may raise anything
            raise ArtefactError(
                f"{artefact.entry.model_id}: it can't be opened: {type(error).__name__}: {error}",
                metadata={"model_id": artefact.entry.model_id},
            ) from error
        artefact.verify()
        return served

    def open_named(self, state: RegistryState, model_id: str) -> ServedModel:
        """A model that a request named.

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
        return self._open(self._artefacts.seen(state, entry))

    def _open(self, artefact: Artefact) -> ServedModel:
        started = time.perf_counter()
        entry = artefact.entry
        try:
            predictor = artefact.open(unpickle=self._choice.unpickle)
        except ArtefactError:
            self._check()  # files that are missing may be so with all the others
            raise
        row_seconds = _warm(predictor)
        if not predictor.feature_set and (lost := artefact.feature_set_lost()):
            _log.warning("model.feature_set_unknown", key=str(entry.key), model_id=entry.model_id, why=lost)
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
            row_seconds=row_seconds,
            stale_at=self._stale_at(entry),
        )

    def _stale_at(self, entry: ModelRegistryEntry) -> float | None:
        """Unix time from which a model is stale; one that does not say when it was made is so at once."""
        age = self._choice.max_age
        return None if age is None else entry.created.timestamp() + age.total_seconds()


def _warm(predictor: Predictor) -> float:
    """Answer one row a few times; the best time in seconds."""
    low = predictor.feature_min
    row = np.zeros((1, len(predictor.feature_names))) if low is None else np.nan_to_num(low).reshape(1, -1)
    best = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        with suppress(BrokenScoresError):  # a row that was made up; a request with it is told
            predictor.predict(row)
        best = min(best, time.perf_counter() - started)
    return best
