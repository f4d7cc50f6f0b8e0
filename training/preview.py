"""What a retrain would do, without doing it: reads bars, writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pandas as pd

from config.evidence import RetrainPolicy
from config.settings import Settings
from features.bars import read_bars
from features.errors import FeatureError
from training.plan import Job, plan_jobs
from training.schedule import due_slot, next_slot, read_state


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
    auto_promote: bool


def preview(
    settings: Settings, policies: Sequence[RetrainPolicy], *, once: bool, now: datetime | None = None
) -> tuple[list[PreviewRow], list[str]]:
    """A row a job, in the order of the plan, and the plan's warnings.

    Raises:
        ConfigError: a schedule or the state file can't be read.
    """
    now = now or datetime.now(UTC)
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
        index = _used(policy, read_bars(job.ohlcv, timeframe=job.timeframe).frame.index)
    except FeatureError as error:
        problem = str(error)
    else:
        bars, span = len(index), _span(policy, index, settings.ml.test_fraction)
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
        auto_promote=policy.auto_promote,
    )


def _used(policy: RetrainPolicy, index: pd.Index) -> pd.Index:
    """The bars that a policy takes, by their open times."""
    if not len(index):
        return index
    start = policy.train_start
    if policy.lookback_days is not None:
        start = index[-1] - timedelta(days=policy.lookback_days)
    first = index[0] if start is None else pd.Timestamp(start)
    last = index[-1] if policy.test_end is None else pd.Timestamp(policy.test_end)
    return index[(index >= first) & (index <= last)]


def _span(policy: RetrainPolicy, index: pd.Index, test_fraction: float) -> str:
    if not len(index):
        return "no bars"
    first, last = f"{index[0]:%Y-%m-%d}", f"{index[-1]:%Y-%m-%d}"
    train_end, test_start = policy.train_end or policy.test_start, policy.test_start or policy.train_end
    if train_end is None or test_start is None:
        return f"{first} to {last}, the last {test_fraction:.0%} for the test"
    return f"{first} to {train_end:%Y-%m-%d}, test {test_start:%Y-%m-%d} to {last}"
