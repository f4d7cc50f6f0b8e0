"""What a retrain would do, without doing it: reads bars, writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import pandas as pd

from signalserve.common.moments import utc_now
from signalserve.common.timeframe import UnknownTimeframeError
from signalserve.config.evidence import RetrainPolicy
from signalserve.config.settings import Settings
from signalserve.features.bars import read_bars
from signalserve.features.errors import FeatureError
from signalserve.features.pipeline import FeaturePipeline
from signalserve.training.dataset import split_bars
from signalserve.training.errors import TrainingError
from signalserve.training.plan import Job, plan_jobs
from signalserve.training.retrain_job import training_request
from signalserve.training.schedule import due_slot, next_slot, read_state
from signalserve.training.split import Split, walk_forward_folds


@dataclass(frozen=True)
class PreviewRow:
    """One job: `now` if it would start at once, else at `next_due`; `bars` is None where there is a `problem`."""

    policy: str
    key: str
    slot: datetime
    now: bool
    next_due: datetime | None
    bars: int | None
    problem: str
    model_type: str
    span: str
    grid: bool
    refit: bool
    auto_promote: bool


def preview(
    settings: Settings, policies: Sequence[RetrainPolicy], *, once: bool, now: datetime | None = None
) -> tuple[list[PreviewRow], list[str]]:
    """A row a job, in the order of the plan, and the plan's warnings.

    Raises:
        ConfigError: a schedule or the state file can't be read.
    """
    now = now or utc_now()
    state = read_state(settings.retrain.output_dir)
    starts: dict[str, bool] = {}
    slots: list[tuple[RetrainPolicy, datetime]] = []
    for policy in policies:
        due = due_slot(policy, state.of(policy, now), now)
        starts[policy.name] = once or due is not None
        slots.append((policy, due or (now if once else next_slot(policy, now) or now)))
    plan = plan_jobs(settings, slots)
    rows = [_row(settings, job, starts[job.policy.name], now) for job in plan.jobs]
    return rows, list(plan.warnings)


def _row(settings: Settings, job: Job, starts: bool, now: datetime) -> PreviewRow:
    policy = job.policy
    bars, problem, span = None, "", ""
    try:
        index, split = _split(settings, job)
    except (FeatureError, UnknownTimeframeError, TrainingError) as error:
        problem = str(error)
    else:
        bars = split.test.stop - split.train.start
        span = f"{_dates(index, split.train)}, test {_dates(index, split.test)}"
    return PreviewRow(
        policy=policy.name,
        key=job.key,
        slot=job.slot,
        now=starts,
        next_due=next_slot(policy, now),
        bars=bars,
        problem=problem,
        model_type=job.model_type,
        span=span,
        grid=policy.grid,
        refit=settings.ml.refit if policy.refit is None else policy.refit,
        auto_promote=policy.auto_promote,
    )


def _split(settings: Settings, job: Job) -> tuple[pd.DatetimeIndex, Split]:
    """Open times of a job's bars, and how its training would split them: all that can fail before a fit."""
    request = training_request(settings, job)
    bars = read_bars(job.ohlcv, timeframe=job.timeframe)
    split = split_bars(bars, FeaturePipeline(request.preset).warmup_bars, request)
    walk_forward_folds(split.train, request.walk_forward, horizon=request.label.horizon_bars)
    return pd.DatetimeIndex(bars.frame.index), split


def _dates(index: pd.DatetimeIndex, span: range) -> str:
    return f"{index[span.start]:%Y-%m-%d} to {index[span.stop - 1]:%Y-%m-%d}"
