"""How what a run makes is registered: once a request, whole or as `failed` with the error's text.

The run directory is built under a hidden name and renamed when whole; only then is it registered.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from signalserve.features.errors import FeatureError
from signalserve.registry import ModelMetadata, Registry, Status, new_run
from signalserve.registry.entry import ModelRegistryEntry
from signalserve.registry.errors import RegistryError
from signalserve.registry.events import Action
from signalserve.registry.metadata import META_FILE
from signalserve.registry.runs import Announce, RunDirectory
from signalserve.registry.sealing import seal
from signalserve.trading.metrics import Metrics
from signalserve.training.errors import TrainingError, TrainingRequestError
from signalserve.training.interrupts import uninterrupted
from signalserve.training.progress import Report
from signalserve.training.record import base_metadata, write_artefacts
from signalserve.training.request import TrainRequest


@dataclass(frozen=True)
class TrainResult:
    """A registered model: where it is, how it did out of sample, what was tolerated on the way.

    `refitted` is the same recipe on all bars, where that was asked for: it has no metrics of its own.
    """

    model_id: str
    path: Path
    metrics: Metrics
    metadata: ModelMetadata
    engine: str
    engine_reason: str
    digest: str
    warnings: tuple[str, ...]
    refitted: TrainResult | None = None


@dataclass(frozen=True)
class Made:
    """What a run has made: the fitted model, the rows [rows, features] of its fit, and its metadata."""

    model: Any
    reference: np.ndarray
    meta: ModelMetadata
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Registering:
    """Where models of a training are registered, and for whom."""

    registry: Registry
    report: Report
    actor: str
    via: str
    announce: Announce | None = None

    def result(self, request: TrainRequest, make: Callable[[RunDirectory], Made]) -> TrainResult:
        """The model that `make` makes, registered; the one that the request's id has registered already.

        Raises:
            TrainingRequestError: the request's id was used for something else.
            TrainingError: the run failed; `model_id` names the `failed` entry that keeps the text.
        """
        try:
            earlier = self._answered(request)
            if earlier is not None:
                return earlier
            with ExitStack() as stack:
                with uninterrupted():
                    run = stack.enter_context(
                        new_run(
                            request.base_dir,
                            request.symbol,
                            request.timeframe,
                            request.model_type,
                            announce=self.announce,
                        )
                    )
                try:
                    # as models run; threads beyond the cores that are free cost more than they bring
                    with threadpool_limits(limits=1):
                        return self._registered(run, request, make(run))
                except Exception as error:
                    with uninterrupted():
                        raise self._failed(run, request, error) from error
                except BaseException:
                    with uninterrupted():
                        shutil.rmtree(run.path, ignore_errors=True)
                    raise
        except (OSError, RegistryError) as error:
            raise TrainingError(f"no run directory in {request.base_dir}: {error}") from error

    def _registered(self, run: RunDirectory, request: TrainRequest, made: Made) -> TrainResult:
        self.report("writing, compiling and proving the artefacts")
        write_artefacts(run.path, made.model, made.meta)
        # sealing adds the engine, and why it is not ONNX where it is not, to meta.json
        sealed = seal(run.path, made.meta, made.model, made.reference)
        meta = ModelMetadata.read(run.path / META_FILE)
        self.report("registering")
        with uninterrupted():
            path = run.commit()
            entry = self._register(request, meta)
            if entry.model_id != run.model_id:  # another process has answered the request in the meantime
                shutil.rmtree(path)
                return self._of(entry)
        return TrainResult(
            run.model_id,
            path,
            dict(meta.metrics or {}),
            meta,
            sealed.engine,
            sealed.engine_reason,
            sealed.digest,
            made.notes,
        )

    def _register(
        self, request: TrainRequest, meta: ModelMetadata, *, error: str | None = None
    ) -> ModelRegistryEntry:
        return self.registry.register(
            meta,
            "success" if error is None else "failed",
            keep=request.keep,
            error=error,
            request_id=request.request_id,
            actor=self.actor,
            via=self.via,
        )

    def _answered(self, request: TrainRequest) -> TrainResult | None:
        """The model that the request's id has registered already; None where there is none."""
        if not self.registry.store.exists() or not request.request_id:
            return None
        answer = self.registry.state.requests.get(request.request_id)
        if answer is None:
            return None
        change = answer.changes[0] if answer.changes else None
        if (
            change is None
            or answer.action != Action.REGISTER
            or (change.symbol, change.timeframe) != (request.symbol, request.timeframe)
        ):
            raise TrainingRequestError(
                f"request_id {request.request_id!r} was used at revision {answer.revision} for something else"
            )
        entry = self.registry.entry(change.model_id)
        if entry.status == Status.FAILED:
            raise TrainingError(answer.error, model_id=entry.model_id)
        return self._of(entry)

    def _of(self, entry: ModelRegistryEntry) -> TrainResult:
        """A model that stands in the registry, as the result of the request that made it."""
        artefact = self.registry.artefact(entry.model_id)
        meta = artefact.meta()
        return TrainResult(
            entry.model_id,
            artefact.folder,
            dict(meta.metrics or {}),
            meta,
            str(meta.extra.get("engine", "")),
            str(meta.extra.get("engine_reason", "")),
            artefact.digest,
            tuple(meta.extra.get("warnings", ())),
        )

    def _failed(self, run: RunDirectory, request: TrainRequest, error: Exception) -> TrainingError:
        """Keep the error's text in a `failed` entry, and give the error to raise."""
        own = isinstance(error, TrainingError | FeatureError | RegistryError)
        text = str(error) if own else f"{type(error).__name__}: {' '.join(str(error).split())}"
        try:
            if not run.committed:
                # half-written artefacts help nobody; the folder itself stays, it reserves the id
                for item in run.path.iterdir():
                    shutil.rmtree(item) if item.is_dir() else item.unlink()
                meta = base_metadata(run, request, extra={"error": text, "error_type": type(error).__name__})
                meta.write(run.path / META_FILE)
                run.commit()
            else:
                meta = ModelMetadata.read(run.final_path / META_FILE).with_extra(error=text)
                meta.write(run.final_path / META_FILE)
            entry = self._register(request, meta, error=text)
            if entry.model_id != run.model_id:
                shutil.rmtree(run.final_path)
        except (OSError, RegistryError) as second:
            return TrainingError(f"{text} (and the failure could not be registered: {second})")
        return TrainingError(text, model_id=entry.model_id)
