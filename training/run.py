"""One training run: bars in, a registered model out.

The run directory is built under a hidden name and renamed when whole; only then is it registered. Whatever
goes wrong on the way leaves a `failed` entry whose meta.json holds the error's text.
"""

from __future__ import annotations

import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.bars import read_bars
from features.errors import FeatureError
from features.pipeline import FeaturePipeline
from features.timeframe import bars_per_year
from registry import ModelMetadata, new_run, register_model
from registry.artifacts import seal
from registry.errors import RegistryError
from registry.runs import RunDirectory
from training.dataset import Dataset, prepare
from training.errors import TrainingError
from training.importances import feature_importances
from training.metrics import Metrics, classification_metrics, strategy_metrics
from training.models import build_model
from training.progress import Report, quiet
from training.record import base_metadata, metadata_of, write_artifacts
from training.request import TrainRequest
from training.simulation import simulate


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
    request: TrainRequest, *, report: Report = quiet, actor: str = "", via: str = "python"
) -> TrainResult:
    """Train one model on the earlier bars, measure it on the later ones, seal and register it.

    Args:
        request: what to train; `TrainRequest.from_settings` makes one.
        report: is told each step as it starts; `training.progress.steps` gives one for terminals.
        actor: who trains, for the event log; empty: user@host.
        via: cli, lab or python.

    Raises:
        TrainingRequestError: the request can't be run; nothing was written.
        TrainingError: the run failed; `model_id` names the `failed` entry that keeps the text.
    """
    request.check()
    try:
        with new_run(request.base_dir, request.symbol, request.timeframe, request.model_type) as run:
            try:
                return _train(run, request, report, actor, via)
            except Exception as error:
                raise _failed(run, request, error, actor, via) from error
    except (OSError, RegistryError) as error:
        raise TrainingError(f"no run directory in {request.base_dir}: {error}") from error


def _train(run: RunDirectory, request: TrainRequest, report: Report, actor: str, via: str) -> TrainResult:
    report(f"reading {request.ohlcv}")
    bars = read_bars(request.ohlcv, timeframe=request.timeframe)
    pipeline = FeaturePipeline(request.preset)
    report(f"computing {len(pipeline.names)} features of {len(bars.frame):,} bars")
    dataset = prepare(bars, pipeline, request)
    rows = dataset.labelled(dataset.split.train)
    report(f"fitting {request.model_type} on {len(rows):,} bars")
    model, fit_warnings = _fit(dataset, rows, request)
    report(f"measuring on {len(dataset.split.test):,} bars that the fit never saw")
    metrics = _measure(model, dataset, request)
    report("writing, compiling and proving the artefacts")
    notes = (*(str(warning) for warning in bars.warnings), *fit_warnings)
    importances = feature_importances(
        model, dataset.names, dataset.matrix[rows], dataset.labels.classes[rows], seed=request.seed
    )
    meta = metadata_of(run, request, dataset, metrics, notes, importances)
    write_artifacts(run.path, model, meta)
    # sealing adds the engine, and why it is not ONNX where it is not, to meta.json
    sealed = seal(run.path, meta, model, dataset.matrix[rows])
    meta = ModelMetadata.read(run.path / "meta.json")
    path = run.commit()
    report("registering")
    register_model(
        meta, request.base_dir, max_models_per_symbol_tf=request.keep, pins=request.pins, actor=actor, via=via
    )
    return TrainResult(
        run.model_id, path, metrics, meta, sealed.engine, sealed.engine_reason, sealed.digest, notes
    )


def _fit(dataset: Dataset, rows: NDArray[np.intp], request: TrainRequest) -> tuple[Any, tuple[str, ...]]:
    """A fitted model, and what its library warned of.

    It is fitted on a plain array: names live in meta.json, and a model that remembers them as well would warn
    at each array that it scores.
    """
    model = build_model(
        request.model_type, request.params, seed=request.seed, embargo=request.label.horizon_bars
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(dataset.matrix[rows], dataset.labels.classes[rows].astype(np.int64))
    texts = (f"{item.category.__name__}: {' '.join(str(item.message).split())}" for item in caught)
    return model, tuple(dict.fromkeys(texts))


def _measure(model: Any, dataset: Dataset, request: TrainRequest) -> Metrics:
    test = dataset.split.test
    probability = model.predict_proba(dataset.matrix[test.start : test.stop])[:, 1].astype(np.float64)
    rows = dataset.labelled(test)
    span = dataset.bars.frame.iloc[test.start : test.stop]
    close = span["close"].to_numpy()
    simulation = simulate(
        span["open"].to_numpy(),
        close,
        probability,
        proba_entry=request.proba_entry,
        proba_exit=request.proba_exit,
        cost_bps=request.fee_bps + request.slippage_bps,
    )
    return {
        **classification_metrics(dataset.labels.classes[rows], probability[rows - test.start]),
        **strategy_metrics(simulation, close, bars_per_year=bars_per_year(request.timeframe)),
        "train_rows": len(dataset.labelled(dataset.split.train)),
        "test_rows": len(rows),
        "test_bars": len(test),
    }


def _failed(
    run: RunDirectory, request: TrainRequest, error: Exception, actor: str, via: str
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
            meta.write(run.path / "meta.json")
            run.commit()
        else:
            meta = ModelMetadata.read(run.final_path / "meta.json").with_extra(error=text)
            meta.write(run.final_path / "meta.json")
        register_model(
            meta,
            request.base_dir,
            status="failed",
            max_models_per_symbol_tf=request.keep,
            error=text,
            pins=request.pins,
            actor=actor,
            via=via,
        )
    except (OSError, RegistryError) as second:
        return TrainingError(f"{text} (and the failure could not be registered: {second})")
    return TrainingError(text, model_id=run.model_id)
