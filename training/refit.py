"""A model's recipe once more, on all bars: what was measured on the test span learns from it, too.

1. The recipe is the measured model's: its parameters (those that won its grid), features, label and seed.
2. It is fitted on the training part and the test span, without the last bars, whose labels would read beyond them.
3. It is measured on no bar. It names the model whose evidence it carries (`refit_of`), and has no metrics of its own.
"""

from __future__ import annotations

from dataclasses import replace

from signalserve.registry.runs import RunDirectory
from signalserve.training.dataset import Dataset, read_dataset
from signalserve.training.errors import TrainingError
from signalserve.training.importances import feature_importances
from signalserve.training.record import refit_metadata
from signalserve.training.registering import Made, Registering, TrainResult
from signalserve.training.request import TrainRequest
from signalserve.training.split import final_window
from signalserve.training.walk_forward import fit


def refit(
    request: TrainRequest, measured: TrainResult, dataset: Dataset | None, registering: Registering
) -> TrainResult:
    """Fit and register the recipe of a measured model on all of its bars.

    `dataset` are the bars that the model was trained and measured on; None: they are read again, and must be the same.

    Raises:
        TrainingError: the run failed, and a `failed` entry keeps the text; the measured model stays.
    """
    own = replace(
        request,
        params=dict(measured.metadata.extra["model_params"]),
        grid=None,
        request_id=f"{request.request_id}:refit" if request.request_id else "",
    )

    def make(run: RunDirectory) -> Made:
        seen = dataset if dataset is not None else _read_again(own, measured, registering)
        return _make(run, own, measured, seen, registering)

    try:
        return registering.result(own, make)
    except TrainingError as error:
        text = f"{measured.model_id} is registered, and its refit failed: {error}"
        raise TrainingError(text, model_id=error.model_id) from error


def _read_again(request: TrainRequest, measured: TrainResult, registering: Registering) -> Dataset:
    dataset = read_dataset(request, registering.report)
    if dataset.bars.sha256 != measured.metadata.extra["data"]["sha256"]:
        raise TrainingError(f"{request.ohlcv} has changed since {measured.model_id} was trained; train again")
    return dataset


def _make(
    run: RunDirectory,
    request: TrainRequest,
    measured: TrainResult,
    dataset: Dataset,
    registering: Registering,
) -> Made:
    horizon, stop = request.label.horizon_bars, dataset.split.test.stop
    window = final_window(
        range(dataset.split.train.start, stop - horizon), request.walk_forward, horizon=horizon
    )
    rows = dataset.fit_rows(window, range(stop, stop))
    registering.report(f"fitting {request.model_type} again, on all {len(rows):,} bars")
    model, notes = fit(dataset, rows, request)
    importances = feature_importances(
        model, dataset.names, dataset.matrix[rows], dataset.labels.classes[rows], seed=request.seed
    )
    meta = refit_metadata(
        run, request, dataset, rows, (measured.model_id, measured.digest), notes, importances
    )
    return Made(model, dataset.matrix[rows], meta, notes)
