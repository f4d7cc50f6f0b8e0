"""One job of a retrain, as a worker runs it: train, evaluate, report; and its promote, once its batch is judged.

1. What goes wrong ends this job and no other: its result says at which step.
2. A job that has registered its model before (its worker died, the run was interrupted) takes that model over
   and goes on behind what is in the registry's log: nothing is registered or evaluated twice.
3. What computes is imported by the job, not by the module: the process that hands jobs out does without.
4. Its promote comes after the last job of its batch (`training/batch.py`).
5. While it runs, a file names what it builds (`training/unfinished.py`), for who clears up after a worker that died.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any

from signalserve.common.moments import parse_moment, second_text, utc_now
from signalserve.config.logs import configure_logs
from signalserve.config.settings import Settings
from signalserve.features.errors import FeatureError
from signalserve.judging import PromoteGate
from signalserve.registry import Promotion, Registry, Status, open_registry, signer_of
from signalserve.registry.errors import GateRefusedError, RegistryError, StaleExpectationError
from signalserve.registry.runs import Announce
from signalserve.training.errors import TrainingError, TrainingRequestError
from signalserve.training.failure import register_failure
from signalserve.training.plan import Job, slot_text
from signalserve.training.unfinished import marked

if TYPE_CHECKING:
    from signalserve.training.registering import TrainResult
    from signalserve.training.request import TrainRequest


class JobStatus(StrEnum):
    """How a job ended."""

    TRAINED = "trained"  # registered; the gate would refuse it
    CANDIDATE = "candidate"  # the gate would let it in
    PROMOTED = "promoted"
    REFUSED = "refused"  # auto_promote asked, and the gate said no
    FAILED = "failed"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class JobResult:
    """A line of runs.jsonl. `metrics` are the backtest's, `report` is its folder, `seconds` are of the wall clock.

    Where `model_id` is a refit that goes on to the gate, `measured` is the model whose evidence it carries, and whose
    metrics and report these are.
    """

    time: str
    policy: str
    symbol: str
    timeframe: str
    slot: str
    request_id: str
    status: JobStatus
    model_id: str | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    failed_verdicts: tuple[str, ...] = ()
    report: str | None = None
    seconds: float = 0.0
    error: str | None = None
    measured: str | None = None

    @classmethod
    def of(cls, job: Job, status: JobStatus, **more: Any) -> JobResult:
        """A job's result, as of now."""
        now = second_text(utc_now())
        return cls(
            now,
            job.policy.name,
            job.symbol,
            job.timeframe,
            slot_text(job.slot),
            job.request_id,
            status,
            **more,
        )

    def ended(self, status: JobStatus, error: str) -> JobResult:
        """The same, as it ended now."""
        return replace(self, time=second_text(utc_now()), status=status, error=error)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Waiting:
    """A job before its promote: its result so far, and the reason that the promote's event shall have."""

    job: Job
    result: JobResult
    reason: str = ""


@dataclass
class _Run:
    """What a job knows so far."""

    settings: Settings
    job: Job
    actor: str
    via: str
    step: str = "training"
    model_id: str | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    failed_verdicts: tuple[str, ...] = ()
    report: str | None = None
    note: str | None = None
    measured: str | None = None
    announce: Announce | None = None

    @cached_property
    def registry(self) -> Registry:
        return registry_of(self.settings)


def registry_of(settings: Settings) -> Registry:
    """The registry of a retrain, with the configuration's gate."""
    return open_registry(
        settings.ml.models_dir,
        gate=PromoteGate.of(settings),
        pins=settings.ml.pinned_ids(),
        signer=signer_of(settings.registry.signing_key, settings.ml.models_dir),
    )


def evaluation_id(job: Job) -> str:
    """The request_id of a job's evaluation."""
    return f"{job.request_id}:evaluate"


def run_job(settings: Settings, actor: str, via: str, job: Job) -> JobResult:
    """Do a job's steps up to its promote; raises nothing but what interrupts it."""
    run = _Run(settings, job, actor, via)

    def measure() -> JobStatus:
        with marked(settings.retrain.output_dir, job.job_id, job.key) as marker:
            run.announce = marker.announce
            return _steps(run)

    return _ended(run, measure)


def promote_job(settings: Settings, actor: str, via: str, waiting: Waiting) -> JobResult:
    """Ask for the promote of a job whose batch lets it in; raises nothing but what interrupts it."""
    result = waiting.result
    run = _Run(settings, waiting.job, actor, via, "promote", result.model_id, result.metrics)
    run.failed_verdicts, run.report, run.measured = result.failed_verdicts, result.report, result.measured
    done = _ended(run, lambda: _promote(run, str(result.model_id), waiting.reason))
    return replace(done, seconds=round(result.seconds + done.seconds, 3))


def _ended(run: _Run, steps: Callable[[], JobStatus]) -> JobResult:
    # a worker starts with no settings, and log lines on stdout would mix with the command's answer
    configure_logs(run.settings.logging)
    began = time.monotonic()
    try:
        status = steps()
    except Exception as error:  # noqa: BLE001 - whatever it is, the other jobs go on
        known = isinstance(error, TrainingError | RegistryError | FeatureError)
        text = " ".join(str(error).split())
        run.note = f"{run.step}: {text if known else f'{type(error).__name__}: {text}'}"
        run.model_id = run.model_id or getattr(error, "model_id", None)
        status = JobStatus.FAILED
    return JobResult.of(
        run.job,
        status,
        model_id=run.model_id,
        metrics=run.metrics,
        failed_verdicts=run.failed_verdicts,
        report=run.report,
        seconds=round(time.monotonic() - began, 3),
        error=run.note,
        measured=run.measured,
    )


def _steps(run: _Run) -> JobStatus:
    trained = _train(run)
    run.model_id = model_id = trained.model_id
    run.step = "evaluation"
    passed = _evaluate(run, model_id)
    if passed is None:
        return JobStatus.TRAINED
    from signalserve.training.backtest import BacktestRequest, backtest

    run.step = "backtest"
    first, last = _evaluated_window(run, model_id)
    choice = BacktestRequest.from_settings(
        run.settings,
        run.job.symbol,
        run.job.timeframe,
        model_id=model_id,
        ohlcv=run.job.ohlcv,
        start=first,
        end=last,
    )
    result = backtest(choice, registry=run.registry, actor=run.actor, via=run.via)
    run.metrics, run.report = dict(result.metrics), str(result.folder)
    if trained.refitted is not None and "recipe" in run.settings.promotion.accept_kinds:
        run.measured, run.model_id = model_id, (model_id := trained.refitted.model_id)
        passed = _judged(run, model_id)
        if passed is None:
            return JobStatus.TRAINED
    if run.registry.entry(model_id).status == Status.PRODUCTION:
        return JobStatus.PROMOTED
    return JobStatus.CANDIDATE if passed else JobStatus.TRAINED


def _train(run: _Run) -> TrainResult:
    """The registered model, and its refit; the one of an earlier attempt where its request_id is in the log."""
    from signalserve.training.run import train

    run.registry.store.check()  # a training makes a registry where there is none; that is no retrain's to do
    try:
        request = training_request(run.settings, run.job)
    except TrainingRequestError as error:
        run.model_id = fail(
            run.settings, run.registry, run.actor, run.via, run.job, str(error), announce=run.announce
        )
        raise
    return train(request, registry=run.registry, actor=run.actor, via=run.via, announce=run.announce)


def training_request(settings: Settings, job: Job) -> TrainRequest:
    """What a job trains.

    Raises:
        TrainingRequestError: the policy, or the configuration, asks for what there is not.
    """
    from signalserve.training.request import TrainRequest

    policy = job.policy
    chosen = {
        name: value
        for name in ("lookback_days", "train_start", "train_end", "test_start", "test_end")
        if (value := getattr(policy, name)) is not None
    }
    return TrainRequest.from_settings(
        settings,
        job.symbol,
        job.timeframe,
        preset=policy.preset,
        model_type=job.model_type,
        ohlcv=job.ohlcv,
        grid=policy.grid,
        refit=policy.refit,
        request_id=job.request_id,
        **chosen,
    )


def fail(
    settings: Settings,
    registry: Registry,
    actor: str,
    via: str,
    job: Job,
    error: str,
    *,
    announce: Announce | None = None,
) -> str | None:
    """Leave a `failed` entry for a job that has registered nothing; gives its model_id, if there is one."""
    return register_failure(
        registry,
        job.symbol,
        job.timeframe,
        job.model_type,
        error,
        keep=settings.ml.max_models_per_symbol_tf,
        request_id=job.request_id,
        actor=actor,
        via=via,
        announce=announce,
    )


def _evaluate(run: _Run, model_id: str) -> bool | None:
    """As `_judged`, after the evaluation. One that an earlier attempt left in the log is not made again."""
    from signalserve.training.evaluation import evaluate
    from signalserve.training.recipe import carry_evidence

    settings, request_id = run.settings, evaluation_id(run.job)
    if request_id in run.registry.state.requests:
        # that attempt may have ended before the refit had its record
        carry_evidence(run.registry, model_id, request_id=request_id, actor=run.actor, via=run.via)
    elif run.registry.entry(model_id).status not in (Status.PRODUCTION, Status.ARCHIVED):
        evaluate(
            settings,
            model_id,
            ohlcv=run.job.ohlcv,
            registry=run.registry,
            by_trainer=True,
            request_id=request_id,
            actor=run.actor,
            via=run.via,
        )
    return _judged(run, model_id)


def _judged(run: _Run, model_id: str) -> bool | None:
    """Whether the gate would let a model in; None: someone has archived it since an earlier attempt."""
    entry = run.registry.entry(model_id)
    if entry.status == Status.PRODUCTION:
        return True
    if entry.status == Status.ARCHIVED:
        run.note = f"{model_id} was registered by an earlier attempt, and archived since"
        return None
    decision = run.registry.gate.judge(run.registry.state, entry, force=False)
    run.failed_verdicts = tuple(f"{verdict.name}: {verdict.text}" for verdict in decision.failed)
    return decision.allowed


def _evaluated_window(run: _Run, model_id: str) -> tuple[datetime | None, datetime | None]:
    """The bars that the evaluation looked at: the report is of the same ones, and no second look."""
    record = run.registry.state.evidence.get(model_id)
    if record is None:
        return None, None
    return parse_moment(record["window_start"]), parse_moment(record["window_end"])


def _promote(run: _Run, model_id: str, reason: str) -> JobStatus:
    """Ask the gate, against the champion that the evidence is about."""
    record = run.registry.state.evidence.get(model_id)
    champion = (record or {}).get("champion")
    expected = str(champion["model_id"]) if champion else ""
    try:
        run.registry.promote(
            [Promotion(model_id, expected)],
            reason=reason,
            request_id=f"{run.job.request_id}:promote",
            actor=run.actor,
            via=run.via,
        )
    except (GateRefusedError, StaleExpectationError) as error:
        run.note = str(error)
        return JobStatus.REFUSED
    if run.registry.entry(model_id).status != Status.PRODUCTION:
        run.note = f"{model_id} was promoted, and another model has taken its place since"
        return JobStatus.TRAINED
    return JobStatus.PROMOTED
