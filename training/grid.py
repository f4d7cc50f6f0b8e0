"""A grid search that looks at the training part alone: each candidate is a walk-forward, the best one is trained.

Candidates run in processes of joblib, `ml.grid_jobs` at a time. One that fails is a row with its error. What was
tried is written to `rf_grid_results_{symbol}_{timeframe}_{timestamp}.csv` in the registry's folder, whatever the
model type, and how many were tried goes with the winner: the best of many looks better than it is, and the
deflated Sharpe ratio takes that off again.
"""

from __future__ import annotations

import csv
import io
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs
from joblib.externals.loky import get_reusable_executor
from sklearn.model_selection import ParameterGrid
from threadpoolctl import threadpool_limits

from signalserve.common.files import write_atomically
from signalserve.training.dataset import Dataset
from signalserve.training.errors import TrainingError
from signalserve.training.progress import Report, quiet
from signalserve.training.request import TrainRequest
from signalserve.training.walk_forward import WalkForward, answered, walk_forward

_SMALLER_IS_BETTER = frozenset({"log_loss", "brier"})
_OF_THE_ACCOUNT = frozenset({"sharpe", "cum_return"})


@dataclass(frozen=True)
class Trials:
    """How many parameter sets a model is the best of; what the deflated Sharpe ratio asks for.

    The variance is that of their per-bar Sharpe ratios (ddof=1), None for fewer than two. `file` holds them all.
    """

    count: int = 1
    metric: str | None = None
    per_bar_sharpe_variance: float | None = None
    file: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """For meta.json."""
        return dict(vars(self))


@dataclass(frozen=True)
class Candidate:
    """One parameter set: how it did, or why it could not be tried."""

    params: Mapping[str, Any]
    outcome: WalkForward | None
    error: str = ""


@dataclass(frozen=True)
class Search:
    """A finished search; `candidates` are in order of rank, those that failed last."""

    request: TrainRequest
    candidates: tuple[Candidate, ...]

    @property
    def winner(self) -> tuple[TrainRequest, WalkForward]:
        """The request with the best parameters, and how they did.

        Raises:
            TrainingError: every candidate failed.
        """
        best = self.candidates[0]
        if best.outcome is None:
            raise TrainingError(f"all {len(self.candidates)} parameter sets failed; the first: {best.error}")
        return replace(self.request, params=dict(best.params)), best.outcome

    def trials(self, file: Path) -> Trials:
        """What was tried; a candidate that failed was no chance to be lucky."""
        sharpes = [
            item.outcome.per_bar_sharpe(self.request.timeframe) or 0.0
            for item in self.candidates
            if item.outcome is not None
        ]
        variance = float(np.var(sharpes, ddof=1)) if len(sharpes) > 1 else None
        return Trials(len(sharpes), self.request.grid_metric, variance, file.name)


def grid_search(dataset: Dataset, request: TrainRequest, *, report: Report = quiet) -> Search:
    """Try every parameter set of `request.grid` over `request.params`.

    An undefined metric (no trade, a single class) counts as the worst of those that were measured.
    """
    choices = [
        replace(request, params={**request.params, **choice}, grid=None)
        for choice in ParameterGrid(dict(request.grid or {}))
    ]
    jobs = min(effective_n_jobs(request.grid_jobs), len(choices))
    step = f"trying {len(choices)} parameter sets of {request.model_type} in {jobs} process(es)"
    found: dict[int, Candidate] = {}
    report(step, total=len(choices))
    with _workers(jobs) as parallel:
        tasks = (delayed(_try)(number, dataset, choice) for number, choice in enumerate(choices))
        for number, candidate in parallel(tasks):
            found[number] = candidate
            best = max((_merit(item, request.grid_metric) for item in found.values()), default=-np.inf)
            sign = -1.0 if request.grid_metric in _SMALLER_IS_BETTER else 1.0
            note = f"best {request.grid_metric} {sign * best:.3f}" if np.isfinite(best) else ""
            report(step, done=len(found), total=len(choices), note=note)
    in_order = [found[number] for number in range(len(choices))]
    ranked = sorted(  # stable: of two that are equal the earlier one wins
        in_order, key=lambda item: (item.outcome is None, -_merit(item, request.grid_metric))
    )
    return Search(request, tuple(ranked))


def write_results(search: Search, folder: Path, moment: datetime) -> Path:
    """Write a row a candidate, in order of rank; gives the file."""
    request = search.request
    parameters = sorted({name for item in search.candidates for name in item.params})
    best = search.candidates[0].outcome
    metrics = [] if best is None else list(best.metrics)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["model_type", *parameters, *metrics, "rank", "error"])
    for rank, item in enumerate(search.candidates, 1):
        measured: Mapping[str, Any] = {} if item.outcome is None else item.outcome.metrics
        writer.writerow(
            [
                request.model_type,
                *(item.params.get(name, "") for name in parameters),
                *("" if (value := measured.get(name)) is None else repr(value) for name in metrics),
                rank,
                item.error,
            ]
        )
    path = _free_path(folder, f"rf_grid_results_{request.symbol}_{request.timeframe}_{moment:%Y%m%d_%H%M%S}")
    write_atomically(path, text.getvalue().encode())
    return path


def _try(number: int, dataset: Dataset, request: TrainRequest) -> tuple[int, Candidate]:
    """One candidate, in a process of its own."""
    try:
        with threadpool_limits(limits=1):
            return number, Candidate(request.params, answered(walk_forward(dataset, request)))
    except TrainingError as error:
        return number, Candidate(request.params, None, str(error))
    except Exception as error:  # noqa: BLE001 - whatever a library raises, the other candidates go on
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return number, Candidate(request.params, None, text)


def _merit(candidate: Candidate, metric: str) -> float:
    """Larger is better; minus infinity for what has no metric, and for the account of one that never traded."""
    measured: Mapping[str, Any] = {} if candidate.outcome is None else candidate.outcome.metrics
    value = measured.get(metric)
    # not trading at all is no skill, and yet a return of 0 beats every loss
    if value is None or (metric in _OF_THE_ACCOUNT and not measured["trades"]):
        return float("-inf")
    return -float(value) if metric in _SMALLER_IS_BETTER else float(value)


@contextmanager
def _workers(jobs: int) -> Iterator[Any]:
    """Processes that are gone when the block ends, however it ends."""
    if jobs == 1:
        yield Parallel(n_jobs=1, return_as="generator")
        return
    try:
        yield Parallel(
            n_jobs=jobs,
            backend="loky",
            return_as="generator_unordered",
            batch_size=1,
            initializer=_leave_interrupts_to_the_parent,
        )
    finally:
        get_reusable_executor().shutdown(wait=True, kill_workers=True)


def _leave_interrupts_to_the_parent() -> None:
    # a terminal sends Ctrl-C to the workers too, and each would print a traceback before the parent ends it
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _free_path(folder: Path, stem: str) -> Path:
    names: Sequence[str] | Iterator[str] = (
        f"{stem}.csv" if number == 1 else f"{stem}_{number}.csv" for number in count(1)
    )
    return next(path for name in names if not (path := folder / name).exists())
