"""One training run: bars in, a registered model out.

Whatever goes wrong on the way leaves a `failed` entry whose meta.json holds the error's text (`training.registering`).
Ctrl-C leaves nothing: the hidden folder goes, and once the registering has begun it is finished first. With `refit` a
second model follows the first (`training.refit`), which stays whatever becomes of the second.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from signalserve.common.moments import parse_moment
from signalserve.registry import Registry, open_registry, signer_of
from signalserve.registry.runs import Announce, RunDirectory
from signalserve.trading.metrics import Metrics
from signalserve.training.dataset import Dataset, read_dataset
from signalserve.training.grid import Trials, grid_search, write_results
from signalserve.training.importances import feature_importances
from signalserve.training.interrupts import uninterrupted
from signalserve.training.predictions import write_predictions
from signalserve.training.progress import Report, quiet
from signalserve.training.record import metadata_of
from signalserve.training.refit import refit
from signalserve.training.registering import Made, Registering, TrainResult
from signalserve.training.request import TrainRequest
from signalserve.training.walk_forward import WalkForward, fit, measure, score, walk_forward

__all__ = ["TrainResult", "train"]


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

    With `request.grid` every parameter set walks forward first, and the best is fitted. With `request.refit` the same
    is fitted once more, on all bars, and registered as the result's `refitted`. With a `request_id` that has
    registered a model already, that model is the answer.

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
    registering = Registering(registry, report, actor, via, announce)
    seen: list[Dataset] = []

    def make(run: RunDirectory) -> Made:
        dataset = read_dataset(request, report)
        seen.append(dataset)
        return _make(run, request, dataset, report)

    result = registering.result(request, make)
    if not request.refit:
        return result
    return replace(result, refitted=refit(request, result, seen[0] if seen else None, registering))


def _make(run: RunDirectory, request: TrainRequest, dataset: Dataset, report: Report) -> Made:
    request, walk, trials = _walk(run, dataset, request, report)
    rows = dataset.fit_rows(dataset.window, dataset.split.test)
    report(f"fitting {request.model_type} on {len(rows):,} bars")
    model, fit_notes = fit(dataset, rows, request)
    report(f"measuring on {len(dataset.split.test):,} bars that no fit ever saw")
    probability = score(model, dataset, dataset.split.test)
    metrics = _measure(dataset, probability, request)
    tolerated = [*(str(warning) for warning in dataset.bars.warnings), *_notes(walk), *fit_notes]
    notes = tuple(dict.fromkeys(tolerated))
    importances = feature_importances(
        model, dataset.names, dataset.matrix[rows], dataset.labels.classes[rows], seed=request.seed
    )
    predictions = write_predictions(run.path, dataset, walk, probability)
    meta = metadata_of(run, request, dataset, metrics, walk, trials, notes, importances, predictions)
    return Made(model, dataset.matrix[rows], meta, notes)


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
