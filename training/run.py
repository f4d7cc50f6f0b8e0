"""One training run: bars in, a registered model out.

The run directory is built under a hidden name and renamed when whole; only then is it registered. Whatever
goes wrong on the way leaves a `failed` entry whose meta.json holds the error's text. Ctrl-C leaves nothing: the
hidden folder goes, and once the registering has begun it is finished first.
"""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from signalserve.common.moments import parse_moment
from signalserve.features.bars import read_bars
from signalserve.features.errors import FeatureError
from signalserve.features.pipeline import FeaturePipeline
from signalserve.registry import ModelMetadata, Registry, Status, new_run, open_registry, signer_of
from signalserve.registry.entry import ModelRegistryEntry
from signalserve.registry.errors import RegistryError
from signalserve.registry.events import Action
from signalserve.registry.metadata import META_FILE
from signalserve.registry.runs import Announce, RunDirectory
from signalserve.registry.sealing import seal
from signalserve.trading.metrics import Metrics
from signalserve.training.dataset import Dataset, prepare
from signalserve.training.errors import TrainingError, TrainingRequestError
from signalserve.training.grid import Trials, grid_search, write_results
from signalserve.training.importances import feature_importances
from signalserve.training.interrupts import uninterrupted
from signalserve.training.leakage import check_no_lookahead, random_cuts
from signalserve.training.progress import Report, quiet
from signalserve.training.record import base_metadata, metadata_of, write_artefacts, write_predictions
from signalserve.training.request import TrainRequest
from signalserve.training.walk_forward import WalkForward, fit, measure, score, walk_forward

_LOOKAHEAD_CUTS = 3


@dataclass(frozen=True)
class TrainResult:
    """A registered model: where it is, how it did out of sample, what was tolerated on the way."""

    model_id: str
    path: Path
    metrics: Metrics
    metadata: ModelMetadata
    engine: str
    engine_reason: str
    digest: str
    warnings: tuple[str, ...]


def train(
    request: TrainRequest,
    *,
    registry: Registry | None = None,
    report: Report = quiet,
    actor: str = "",
    via: str = "python",
    announce: Announce | None = None,
) -> TrainResult:
    """Walk forward over the earlier bars, fit one model on them, measure it on the later ones, register it.

    With `request.grid` every parameter set walks forward first, and the best is fitted. With a `request_id`
    that has registered a model already, that model is the answer.

    Args:
        request: what to train; `TrainRequest.from_settings` makes one.
        registry: where the model is registered; None: that of `request.base_dir`.
        report: is told each step as it starts; `training.progress.steps` gives one for terminals.
        actor: who trains, for the event log; empty: this process's user.
        via: cli, lab or python.
        announce: is told of the run directory as soon as it is there.

    Raises:
        TrainingRequestError: the request can't be run; nothing was written.
        TrainingError: the run failed; `model_id` names the `failed` entry that keeps the text.
    """
    request.check()
    if registry is None:  # training registers and promotes nothing, so it needs no gate
        signer = signer_of(request.signing_key, request.base_dir)
        registry = open_registry(request.base_dir, pins=request.pins, signer=signer)
    try:
        earlier = _answered(registry, request)
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
                        announce=announce,
                    )
                )
            try:
                # as models run; threads beyond the cores that are free cost more than they bring
                with threadpool_limits(limits=1):
                    return _train(run, request, registry, report, actor, via)
            except Exception as error:
                with uninterrupted():
                    raise _failed(run, request, registry, error, actor, via) from error
            except BaseException:
                with uninterrupted():
                    shutil.rmtree(run.path, ignore_errors=True)
                raise
    except (OSError, RegistryError) as error:
        raise TrainingError(f"no run directory in {request.base_dir}: {error}") from error


def _train(
    run: RunDirectory, request: TrainRequest, registry: Registry, report: Report, actor: str, via: str
) -> TrainResult:
    report(f"reading {request.ohlcv}")
    bars = read_bars(request.ohlcv, timeframe=request.timeframe)
    pipeline = FeaturePipeline(request.preset)
    report(f"computing {len(pipeline.names)} features of {len(bars.frame):,} bars")
    dataset = prepare(bars, pipeline, request)
    cuts = random_cuts(len(bars.frame), warmup=pipeline.warmup_bars, count=_LOOKAHEAD_CUTS, seed=request.seed)
    check_no_lookahead(pipeline.transform, bars.frame, cuts=cuts)
    request, walk, trials = _walk(run, dataset, request, report)
    rows = dataset.fit_rows(dataset.window, dataset.split.test)
    report(f"fitting {request.model_type} on {len(rows):,} bars")
    model, fit_notes = fit(dataset, rows, request)
    report(f"measuring on {len(dataset.split.test):,} bars that no fit ever saw")
    probability = score(model, dataset, dataset.split.test)
    metrics = _measure(dataset, probability, request)
    report("writing, compiling and proving the artefacts")
    notes = tuple(dict.fromkeys([*(str(warning) for warning in bars.warnings), *_notes(walk), *fit_notes]))
    importances = feature_importances(
        model, dataset.names, dataset.matrix[rows], dataset.labels.classes[rows], seed=request.seed
    )
    meta = metadata_of(run, request, dataset, metrics, walk, trials, notes, importances)
    write_predictions(run.path / "oos_predictions.csv", dataset, walk, probability)
    write_artefacts(run.path, model, meta)
    # sealing adds the engine, and why it is not ONNX where it is not, to meta.json
    sealed = seal(run.path, meta, model, dataset.matrix[rows])
    meta = ModelMetadata.read(run.path / META_FILE)
    report("registering")
    with uninterrupted():
        path = run.commit()
        entry = _register(registry, request, meta, actor, via)
        if entry.model_id != run.model_id:  # another process has answered the request in the meantime
            shutil.rmtree(path)
            return _result(registry, entry)
    return TrainResult(
        run.model_id, path, metrics, meta, sealed.engine, sealed.engine_reason, sealed.digest, notes
    )


def _walk(
    run: RunDirectory, dataset: Dataset, request: TrainRequest, report: Report
) -> tuple[TrainRequest, WalkForward, Trials]:
    """The request with its final parameters, how they did fold by fold, and of how many they are the best."""
    if request.grid is None:
        return request, walk_forward(dataset, request, report=report), Trials()
    search = grid_search(dataset, request, report=report)
    with uninterrupted():
        file = write_results(search, request.base_dir, parse_moment(run.created_at))
    best, walk = search.winner
    return best, walk, search.trials(file)


def _notes(walk: WalkForward) -> list[str]:
    skipped = [f"fold {fold.number} was skipped: {fold.skipped}" for fold in walk.folds if fold.skipped]
    return [*skipped, *walk.notes]


def _measure(dataset: Dataset, test_probability: Any, request: TrainRequest) -> Metrics:
    test = dataset.split.test
    probability = np.full(len(dataset.matrix), np.nan)
    probability[test.start : test.stop] = test_probability
    return {
        **measure(dataset, test, probability, request),
        "train_rows": len(dataset.fit_rows(dataset.window, test)),
        "test_rows": len(dataset.labelled(test)),
        "test_bars": len(test),
    }


def _register(
    registry: Registry,
    request: TrainRequest,
    meta: ModelMetadata,
    actor: str,
    via: str,
    *,
    error: str | None = None,
) -> ModelRegistryEntry:
    return registry.register(
        meta,
        "success" if error is None else "failed",
        keep=request.keep,
        error=error,
        request_id=request.request_id,
        actor=actor,
        via=via,
    )


def _answered(registry: Registry, request: TrainRequest) -> TrainResult | None:
    """The model that the request's id has registered already; None where there is none."""
    if not registry.store.exists() or not request.request_id:
        return None
    answer = registry.state.requests.get(request.request_id)
    if answer is None:
        return None
    change = answer.changes[0] if answer.changes else None
    if (
        change is None
        or answer.action != Action.REGISTER
        or (change.symbol, change.timeframe)
        != (
            request.symbol,
            request.timeframe,
        )
    ):
        raise TrainingRequestError(
            f"request_id {request.request_id!r} was used at revision {answer.revision} for something else"
        )
    entry = registry.entry(change.model_id)
    if entry.status == Status.FAILED:
        raise TrainingError(answer.error, model_id=entry.model_id)
    return _result(registry, entry)


def _result(registry: Registry, entry: ModelRegistryEntry) -> TrainResult:
    """A model that stands in the registry, as the result of the request that made it."""
    artefact = registry.artefact(entry.model_id)
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


def _failed(
    run: RunDirectory, request: TrainRequest, registry: Registry, error: Exception, actor: str, via: str
) -> TrainingError:
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
        entry = _register(registry, request, meta, actor, via, error=text)
        if entry.model_id != run.model_id:
            shutil.rmtree(run.final_path)
    except (OSError, RegistryError) as second:
        return TrainingError(f"{text} (and the failure could not be registered: {second})")
    return TrainingError(text, model_id=entry.model_id)
