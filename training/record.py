"""What a run leaves behind: its metadata and its files."""

from __future__ import annotations

import csv
import platform
from pathlib import Path
from typing import Any

import joblib
import pandas as pd
import sklearn
import xgboost

from features.pipeline import PIPELINE_VERSION
from registry.metadata import ModelMetadata
from registry.runs import RunDirectory
from training.dataset import Dataset
from training.importances import write_importances
from training.metrics import Metrics
from training.request import TrainRequest


def metadata_of(
    run: RunDirectory,
    request: TrainRequest,
    dataset: Dataset,
    metrics: Metrics,
    notes: tuple[str, ...],
    importances: dict[str, float],
) -> ModelMetadata:
    """What meta.json holds of a run that went well; `notes` are what was tolerated on the way."""
    rows = dataset.labelled(dataset.split.train)
    test = dataset.split.test
    return base_metadata(
        run,
        request,
        feature_cols=list(dataset.names),
        train_start=dataset.opened(int(rows[0])),
        # the last bar whose close a label of the fit has read: evidence may start after it
        train_end=dataset.opened(int(rows[-1]) + request.label.horizon_bars),
        metrics=dict(metrics),
        model_path=str(run.final_path / "model.joblib"),
        metrics_path=str(run.final_path / "metrics.csv"),
        feature_importances=importances,
        extra={
            "test_start": dataset.opened(test.start),
            "test_end": dataset.opened(test.stop - 1),
            "model_params": dict(request.params),
            "data": {
                "file": dataset.bars.path.name,
                "sha256": dataset.bars.sha256,
                "bars": len(dataset.bars.frame),
            },
            "warnings": list(notes),
            "xgboost_version": xgboost.__version__,
        },
    )


def base_metadata(run: RunDirectory, request: TrainRequest, **more: Any) -> ModelMetadata:
    """What is known of a run however it ends."""
    return ModelMetadata(
        model_id=run.model_id,
        symbol=request.symbol,
        timeframe=request.timeframe,
        model_type=request.model_type,
        created_at=run.created_at,
        feature_preset=request.preset,
        label_config=request.label.model_dump(mode="json", exclude_none=True),
        meta_path=str(run.final_path / "meta.json"),
        pipeline_version=PIPELINE_VERSION,
        python_version=platform.python_version(),
        sklearn_version=sklearn.__version__,
        pandas_version=pd.__version__,
        random_state=request.seed,
        config_snapshot=dict(request.config_snapshot),
        **more,
    )


def write_artifacts(folder: Path, model: Any, meta: ModelMetadata) -> None:
    """Write model.joblib, metrics.csv, feature_importances.csv and meta.json."""
    joblib.dump(model, folder / "model.joblib", compress=3)
    with (folder / "metrics.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["metric", "value"])
        writer.writerows(
            (name, "" if value is None else repr(value)) for name, value in (meta.metrics or {}).items()
        )
    write_importances(folder / "feature_importances.csv", meta.feature_importances or {})
    meta.write(folder / "meta.json")
