"""What a run leaves behind: its metadata and its files."""

from __future__ import annotations

import csv
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import sklearn
import xgboost
from numpy.typing import NDArray

from signalserve.features.pipeline import PIPELINE_VERSION
from signalserve.predictors.manifest import MODEL_FILE
from signalserve.registry.artefact import IMPORTANCES_FILE
from signalserve.registry.metadata import META_FILE, ModelMetadata
from signalserve.registry.runs import RunDirectory
from signalserve.trading.metrics import Metrics
from signalserve.training.dataset import Dataset
from signalserve.training.grid import Trials
from signalserve.training.importances import write_importances
from signalserve.training.provenance import code_version, library_versions
from signalserve.training.request import TrainRequest
from signalserve.training.trained_on import week_digests
from signalserve.training.walk_forward import WalkForward

METRICS_FILE = "metrics.csv"


def metadata_of(
    run: RunDirectory,
    request: TrainRequest,
    dataset: Dataset,
    metrics: Metrics,
    walk: WalkForward,
    trials: Trials,
    notes: tuple[str, ...],
    importances: dict[str, float],
    predictions_sha256: str,
) -> ModelMetadata:
    """What meta.json holds of a run that went well; `notes` are what was tolerated on the way."""
    rows = dataset.fit_rows(dataset.window, dataset.split.test)
    test = dataset.split.test
    return base_metadata(
        run,
        request,
        feature_cols=list(dataset.names),
        # all that a fit, a fold or a choice has read, labels included: evidence may start after it
        train_start=dataset.opened(dataset.split.train.start),
        train_end=dataset.opened(dataset.last_seen),
        metrics=dict(metrics),
        model_path=str(run.final_path / MODEL_FILE),
        metrics_path=str(run.final_path / METRICS_FILE),
        feature_importances=importances,
        extra={
            "test_start": dataset.opened(test.start),
            "test_end": dataset.opened(test.stop - 1),
            **_fitted(dataset, request, rows, dataset.last_seen),
            "predictions_sha256": predictions_sha256,
            "walk_forward": _walk_forward(dataset, request, walk),
            "trials": trials.to_dict(),
            "evidence": [
                _evidence("recipe", dataset, walk.span, walk.metrics),
                _evidence("artefact", dataset, test, metrics),
            ],
            "warnings": list(notes),
        },
    )


def refit_metadata(
    run: RunDirectory,
    request: TrainRequest,
    dataset: Dataset,
    rows: NDArray[np.intp],
    refit_of: tuple[str, str],
    notes: tuple[str, ...],
    importances: dict[str, float],
) -> ModelMetadata:
    """What meta.json holds of a refit on all bars; `refit_of` is id and digest of the model that was measured."""
    # the test span is trained on now, to its end
    last = dataset.split.test.stop - 1
    return base_metadata(
        run,
        request,
        feature_cols=list(dataset.names),
        train_start=dataset.opened(dataset.split.train.start),
        train_end=dataset.opened(last),
        model_path=str(run.final_path / MODEL_FILE),
        metrics_path=str(run.final_path / METRICS_FILE),
        feature_importances=importances,
        extra={
            "refit_of": {"model_id": refit_of[0], "digest": refit_of[1]},
            **_fitted(dataset, request, rows, last),
            "warnings": list(notes),
        },
    )


def _fitted(dataset: Dataset, request: TrainRequest, rows: NDArray[np.intp], last: int) -> dict[str, Any]:
    """By what and on which bars a model was fitted; its training has seen bars up to `last`."""
    first, stop = dataset.split.train.start, dataset.split.test.stop
    index = dataset.bars.frame.index
    return {
        "fit_start": dataset.opened(int(rows[0])),
        "fit_end": dataset.opened(int(dataset.labels.end[rows].max())),
        "model_params": dict(request.params),
        "class_weight": request.class_weight,
        "calibration": request.calibration,
        "data": {
            "file": dataset.bars.path.name,
            "sha256": dataset.bars.sha256,
            "bars": len(index),
            "span": [dataset.opened(first), dataset.opened(stop - 1)],
            "rows": stop - first,
        },
        "trained_weeks": week_digests(dataset.bars.frame, index[first], index[last]),
        "xgboost_version": xgboost.__version__,
    }


def _evidence(kind: str, dataset: Dataset, span: range, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What training measured out of sample: the folds' refitted models (`recipe`), or this very one (`artefact`)."""
    names = ("cum_return", "sharpe", "max_drawdown", "trades", "auc")
    return {
        "kind": kind,
        "window_start": dataset.opened(span.start),
        "window_end": dataset.opened(span.stop - 1),
        "bars": len(span),
        **{name: metrics[name] for name in names},
    }


def _walk_forward(dataset: Dataset, request: TrainRequest, walk: WalkForward) -> dict[str, Any]:
    return {
        "mode": request.walk_forward.mode,
        "embargo_bars": request.walk_forward.embargo_bars,
        "folds": [
            {
                "fold": fold.number,
                "train_start": dataset.opened(fold.train.start),
                "train_end": dataset.opened(fold.train.stop - 1),
                "test_start": dataset.opened(fold.test.start),
                "test_end": dataset.opened(fold.test.stop - 1),
                "train_rows": fold.rows,
                "test_bars": len(fold.test),
                "auc": fold.auc,
                **({"skipped": fold.skipped} if fold.skipped else {}),
            }
            for fold in walk.folds
        ],
        "metrics": dict(walk.metrics),
    }


def base_metadata(
    run: RunDirectory, request: TrainRequest, *, extra: Mapping[str, Any], **more: Any
) -> ModelMetadata:
    """What is known of a run however it ends."""
    return ModelMetadata(
        model_id=run.model_id,
        symbol=request.symbol,
        timeframe=request.timeframe,
        model_type=request.model_type,
        created_at=run.created_at,
        feature_preset=request.preset,
        label_config=request.label.model_dump(mode="json", exclude_none=True),
        meta_path=str(run.final_path / META_FILE),
        pipeline_version=PIPELINE_VERSION,
        python_version=platform.python_version(),
        sklearn_version=sklearn.__version__,
        pandas_version=pd.__version__,
        random_state=request.seed,
        config_snapshot=dict(request.config_snapshot),
        extra={
            **extra,
            "code_version": code_version(),
            "library_versions": library_versions(),
            # golden rows are drawn by a seed of their own, so that a folder can be sealed by anyone
            "seeds": {"model": request.seed, "golden_rows": 0},
            **({"request_id": request.request_id} if request.request_id else {}),
        },
        **more,
    )


def write_artefacts(folder: Path, model: Any, meta: ModelMetadata) -> None:
    """Write model.joblib, metrics.csv, feature_importances.csv and meta.json."""
    joblib.dump(model, folder / MODEL_FILE, compress=3)
    with (folder / METRICS_FILE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["metric", "value"])
        writer.writerows(
            (name, "" if value is None else repr(value)) for name, value in (meta.metrics or {}).items()
        )
    write_importances(folder / IMPORTANCES_FILE, meta.feature_importances or {})
    meta.write(folder / META_FILE)
