"""Scheduled retraining: due slots become jobs, jobs become models, and all of it is kept.

1. One retrain at a time works on an output folder: a lock that ends with its process.
2. A slot is marked as started before its first job and as finished after its last one that was not
   interrupted; `training.schedule` says what that means for the next start.
3. Promotes come after the last job of their batch, which says how many it lets in (`training.batch`).
4. Each job's result is a line of `{retrain.output_dir}/runs.jsonl`, written as soon as it is there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from signalserve.common.log import LibraryLog
from signalserve.common.moments import in_utc, utc_now
from signalserve.config.evidence import RetrainPolicy, RetrainSettings
from signalserve.config.settings import ConfigError, Settings
from signalserve.judging import Policy
from signalserve.registry.events import json_safe
from signalserve.training.backends import Backend, Inbox, Outcome
from signalserve.training.batch import awaits_promote, judge_batches
from signalserve.training.plan import Job, Plan, plan_jobs
from signalserve.training.retrain_job import (
    JobResult,
    JobStatus,
    Waiting,
    fail,
    promote_job,
    registry_of,
    run_job,
)
from signalserve.training.schedule import check_schedule, due_slot, next_slot, read_state, write_state
from signalserve.training.unfinished import sweep

RUNS_FILE = "runs.jsonl"
LOCK_FILE = ".retrain.lock"
# a clock that is set, or a machine that slept, is noticed within this time
_LONGEST_SLEEP = 60.0

Slot = tuple[RetrainPolicy, datetime]

_log = LibraryLog("retrain")


class RetrainBusyError(Exception):
    """Another retrain works on the same output folder."""


def choose_policies(settings: Settings, names: Sequence[str] = ()) -> list[RetrainPolicy]:
    """The policies of these names, or all; their schedules are checked.

    Raises:
        ConfigError: a name is unknown, or a schedule can't be used.
    """
    policies = settings.retrain.policies
    known = [policy.name for policy in policies]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigError(
            f"retrain.policies: there is no {', '.join(unknown)}; there are {', '.join(known) or 'none'}"
        )
    chosen = [policy for policy in policies if not names or policy.name in names]
    for policy in chosen:
        check_schedule(policy, utc_now())
    return chosen


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Be the only retrain of an output folder.

    Raises:
        RetrainBusyError: another one is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK_FILE, timeout=0, is_singleton=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise RetrainBusyError(
            f"another retrain works on {folder.resolve()}; wait for it, or give this one its own"
            " retrain.output_dir"
        ) from error
    try:
        yield
    finally:
        lock.release()


class Retrain:
    """Runs policies: `once`, or at every slot until the inbox is told to stop.

    `on_plan` is told each batch's plan before it runs, `on_measured` each result whose promote waits for the others,
    `on_result` each result, `on_batch` the results of a batch at its end. `backend` None: the one that the
    configuration names.
    """

    def __init__(
        self,
        settings: Settings,
        policies: Sequence[RetrainPolicy],
        inbox: Inbox,
        *,
        on_plan: Callable[[Plan], None] = lambda plan: None,
        on_measured: Callable[[JobResult], None] = lambda result: None,
        on_result: Callable[[JobResult], None] = lambda result: None,
        on_batch: Callable[[list[JobResult]], None] = lambda results: None,
        clock: Callable[[], datetime] = utc_now,
        backend: Backend | None = None,
        actor: str = "",
        via: str = "python",
    ) -> None:
        self._settings = _absolute(settings)
        self._policies = list(policies)
        self._inbox = inbox
        self._on_plan, self._on_measured = on_plan, on_measured
        self._on_result, self._on_batch = on_result, on_batch
        self._clock = clock
        self._backend = backend
        self._actor, self._via = actor, via
        self._folder = self._settings.retrain.output_dir
        self._registry = registry_of(self._settings)

    def once(self) -> list[JobResult]:
        """Run every policy now: for the slot that is due, or for this moment.

        Raises:
            RegistryMissingError, RetrainBusyError, ConfigError, BackendError: nothing was run.
        """
        self._registry.store.check()
        with exclusive(self._folder):
            return self._run_batch(once_slots(self._settings, self._policies, self._clock()))

    def forever(self) -> list[JobResult]:
        """Run each slot as it comes due, and give the results of a batch that was interrupted.

        A registry that goes away later fails the jobs of that time.

        Raises:
            RegistryMissingError, RetrainBusyError, ConfigError, BackendError: as for `once`.
        """
        self._registry.store.check()
        with exclusive(self._folder):
            results: list[JobResult] = []
            while not self._inbox.stopped:
                now = self._clock()
                due = due_slots(self._settings, self._policies, now)
                if due:
                    results = self._run_batch(due)
                    continue
                upcoming = [next_slot(policy, now) for policy in self._policies]
                waits = [(slot - now).total_seconds() for slot in upcoming if slot is not None]
                self._inbox.sleep(min([*waits, _LONGEST_SLEEP]))
            return [result for result in results if result.status == JobStatus.INTERRUPTED]

    def _run_batch(self, slots: Sequence[Slot]) -> list[JobResult]:
        backend = self._backend or build_backend(self._settings.retrain)
        sweep(self._folder, self._registry)
        plan = plan_jobs(self._settings, slots)
        state = read_state(self._folder)
        for policy, slot in slots:
            state = state.start(policy, slot, self._clock())
        write_state(self._folder, state)
        self._on_plan(plan)
        work = partial(run_job, self._settings, self._actor, self._via)
        results: list[JobResult] = []
        waiting: list[Waiting] = []
        try:
            for job, outcome in backend.run(plan.jobs, work, self._inbox):
                result = self._result(job, outcome)
                if awaits_promote(job, result):
                    waiting.append(Waiting(job, result))
                    self._on_measured(result)
                else:
                    self._end(result, results)
            asked, ended = judge_batches(
                self._registry, Policy.of(self._settings.promotion), plan.jobs, waiting, results
            )
            for result in ended:
                self._end(result, results)
            for result in self._promoted(backend, asked):
                self._end(result, results)
        finally:
            swept = sweep(self._folder, self._registry)
            for name in swept.removed:
                _log.warning("retrain.removed_unregistered_run", folder=name)
            for name in swept.kept:
                _log.warning("retrain.kept_unregistered_run", folder=name, why="its worker may be alive")
        interrupted = {result.policy for result in results if result.status == JobStatus.INTERRUPTED}
        for policy, slot in slots:
            if policy.name not in interrupted:
                state = state.finish(policy, slot, self._clock())
        write_state(self._folder, state)
        self._on_batch(results)
        return results

    def _result(self, job: Job, outcome: Outcome[JobResult]) -> JobResult:
        if outcome.value is not None:
            return outcome.value
        if outcome.interrupted:
            return JobResult.of(job, JobStatus.INTERRUPTED, error="interrupted")
        # the worker is gone and took its account of the job with it
        model_id = fail(self._settings, self._registry, self._actor, self._via, job, outcome.error)
        return JobResult.of(job, JobStatus.FAILED, model_id=model_id, error=outcome.error)

    def _promoted(self, backend: Backend, asked: Sequence[Waiting]) -> Iterator[JobResult]:
        if not asked:
            return
        work = partial(promote_job, self._settings, self._actor, self._via)
        for item, outcome in backend.run(asked, work, self._inbox):
            if outcome.value is not None:
                yield outcome.value
            elif outcome.interrupted:
                yield item.result.ended(JobStatus.INTERRUPTED, "interrupted before its promote")
            else:
                yield item.result.ended(JobStatus.FAILED, f"promote: {outcome.error}")

    def _end(self, result: JobResult, results: list[JobResult]) -> None:
        results.append(result)
        self._keep(result)
        self._on_result(result)

    def _keep(self, result: JobResult) -> None:
        line = json.dumps(json_safe(result.to_dict()), ensure_ascii=False)
        with (self._folder / RUNS_FILE).open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())


def build_backend(settings: RetrainSettings) -> Backend:
    """The backend that the configuration names.

    Raises:
        BackendError: `ray` is not installed.
    """
    if settings.backend == "ray":
        from signalserve.training.ray_backend import RayBackend

        return RayBackend(settings.processes, settings.ray_address)
    from signalserve.training.local_backend import LocalBackend

    return LocalBackend(settings.processes)


def due_slots(settings: Settings, policies: Sequence[RetrainPolicy], now: datetime) -> list[Slot]:
    """The slots to run now; policies that are new are known from now on."""
    folder = settings.retrain.output_dir
    before = state = read_state(folder)
    due: list[Slot] = []
    for policy in policies:
        state = state.seen(policy, now)
        slot = due_slot(policy, state.of(policy, now), now)
        if slot is not None:
            due.append((policy, slot))
    if state != before:
        write_state(folder, state)
    return due


def once_slots(settings: Settings, policies: Sequence[RetrainPolicy], now: datetime) -> list[Slot]:
    """For each policy the slot that is due, or this moment; writes nothing."""
    state = read_state(settings.retrain.output_dir)
    moment = in_utc(now).replace(microsecond=0)
    return [(policy, due_slot(policy, state.of(policy, now), now) or moment) for policy in policies]


def _absolute(settings: Settings) -> Settings:
    """Settings that mean the same folders in a worker that starts elsewhere; a grid stays in its worker."""

    def changed(section: Any, **values: Any) -> Any:
        return section.model_copy(update=values)

    template = Path(settings.data.ohlcv_path)
    here = str(Path.cwd()).replace("{", "{{").replace("}", "}}")
    return settings.model_copy(
        update={
            "data": changed(
                settings.data,
                ohlcv_path=str(template) if template.is_absolute() else f"{here}/{template}",
            ),
            "ml": changed(settings.ml, models_dir=settings.ml.models_dir.resolve(), grid_jobs=1),
            "backtest": changed(settings.backtest, output_dir=settings.backtest.output_dir.resolve()),
            "retrain": changed(settings.retrain, output_dir=settings.retrain.output_dir.resolve()),
        }
    )
