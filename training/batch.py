"""The promotes of a retrain batch: which models go on to the gate, where many were measured at once.

1. A batch is one policy at one slot. Every model that it has measured counts, also one that the gate refuses, one
   whose job failed behind its evaluation, and one that was archived since, whose evidence went with it: its p is 1.
2. The batch is held against 1 - `min_probability` (`judging.false_discovery`). What the gate would let in alone and the
   batch does not is refused with its numbers, and stays a candidate.
3. Where one model was measured, the gate alone decides.
4. A batch that was interrupted promotes nothing: the run that is started again has all of its models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from signalserve.common.key import Key
from signalserve.judging import Evidence, Policy, Ranked, benjamini_hochberg, chance
from signalserve.registry import Registry
from signalserve.registry.errors import RegistryError
from signalserve.registry.state import RegistryState
from signalserve.training.plan import Job
from signalserve.training.retrain_job import JobResult, JobStatus, Waiting, evaluation_id


def awaits_promote(job: Job, result: JobResult) -> bool:
    """Whether a result is one before its promote: it was measured, and its policy promotes."""
    measured = result.status in (JobStatus.CANDIDATE, JobStatus.TRAINED) and result.report is not None
    return job.policy.auto_promote and measured and result.error is None


def judge_batches(
    registry: Registry,
    policy: Policy,
    jobs: Sequence[Job],
    waiting: Sequence[Waiting],
    ended: Sequence[JobResult],
) -> tuple[list[Waiting], list[JobResult]]:
    """Those that the gate is asked to promote, and the results of the others, by the registry as it stands now.

    `jobs` are all of the plan, `ended` the results that wait for nothing.
    """
    results = {result.request_id: result for result in (*ended, *(item.result for item in waiting))}
    interrupted = {result.policy for result in ended if result.status == JobStatus.INTERRUPTED}
    asked: list[Waiting] = []
    refused: list[JobResult] = []
    try:
        state = registry.state
    except RegistryError as error:  # it has gone since
        return [], [item.result.ended(JobStatus.FAILED, f"promote: {error}") for item in waiting]
    ranks = _ranks(state, 1.0 - policy.min_probability, jobs, results)
    for item in waiting:
        ranked, result = ranks.get(item.job.request_id), item.result
        if ranked is None:
            refused.append(
                result.ended(JobStatus.FAILED, "promote: its evaluation has gone from the registry")
            )
        elif item.job.policy.name in interrupted:
            refused.append(
                result.ended(JobStatus.INTERRUPTED, "its batch was interrupted before the promotes")
            )
        elif result.failed_verdicts:
            why = f"{result.model_id}: {'; '.join(result.failed_verdicts)}"
            refused.append(result.ended(JobStatus.REFUSED, why))
        elif ranked.of > 1 and policy.gate == "evidence" and not ranked.allowed:
            why = f"{result.model_id}: {ranked.text}: it passes alone, and the batch lets in fewer"
            refused.append(result.ended(JobStatus.REFUSED, why))
        else:
            many = f": {ranked.text}" if ranked.of > 1 else ""
            asked.append(replace(item, reason=f"retrain policy {item.job.policy.name}{many}"))
    return asked, refused


def _ranks(
    state: RegistryState, level: float, jobs: Sequence[Job], results: dict[str, JobResult]
) -> dict[str, Ranked]:
    """By request_id, the rank of each measured job among those of its policy."""
    batches: dict[str, dict[str, float]] = {}
    for job in jobs:
        if evaluation_id(job) in state.requests:
            found = _chance(state, results[job.request_id])
            batches.setdefault(job.policy.name, {})[job.request_id] = found
    return {
        request_id: ranked
        for batch in batches.values()
        for request_id, ranked in zip(batch, benjamini_hochberg(list(batch.values()), level), strict=True)
    }


def _chance(state: RegistryState, result: JobResult) -> float:
    record = state.evidence.get(result.model_id or "")
    if record is None:
        return 1.0
    try:
        evidence = Evidence.from_dict(record)
    except (KeyError, TypeError, ValueError):
        return 1.0
    key = Key(result.symbol, result.timeframe)
    return chance(evidence, state.tries(key, evidence.window_start, evidence.window_end))
