"""The registry's changes: each takes the lock, asks the lifecycle, commits one event."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from config.evidence import PromotionSettings, TradingRules
from config.settings import load_settings
from registry.artifacts import (
    MANIFEST_FILE,
    MODEL_FILE,
    adopt_folder,
    load_pickle,
    prove,
    read_meta,
    run_dir,
    seal,
    verify,
)
from registry.entry import ModelRegistryEntry, Status
from registry.errors import (
    ArtifactError,
    InvalidArgumentError,
    NotAdoptedError,
    RequestIdReusedError,
)
from registry.events import Event, StatusChange, canonical, json_safe
from registry.evidence import Evidence, moment_of
from registry.files import sha256_hex
from registry.gate import Decision
from registry.identifiers import Key, check_name
from registry.lifecycle import (
    Gate,
    Promotion,
    Transition,
    entry_of,
    nothing_to_roll_back_to,
    plan_archive,
    plan_candidate,
    plan_evaluate,
    plan_promote,
    plan_register,
    plan_rollback,
    rollback_candidates,
)
from registry.metadata import META_FILE, ModelMetadata
from registry.retention import retain
from registry.state import RegistryState
from registry.store import Draft, Origin, Transaction, open_store

DEFAULT_BASE_DIR = Path("outputs/ml_models")

_log = structlog.get_logger("registry")


@dataclass(frozen=True)
class Committed:
    """The answer of a change: its revision and what it did, one transition a model or key.

    `repeated` is true where the request_id had been answered before.
    """

    revision: int
    transitions: tuple[Transition, ...]
    repeated: bool = False


def register_model(
    meta: ModelMetadata,
    base_dir: Path | str = DEFAULT_BASE_DIR,
    status: str = "success",
    max_models_per_symbol_tf: int | None = None,
    *,
    max_models: int | None = None,
    model: Any = None,
    reference: np.ndarray | None = None,
    error: str | None = None,
    pins: Iterable[str] | None = None,
    request_id: str = "",
    actor: str = "",
    via: str = "python",
) -> ModelRegistryEntry:
    """Make the run directory `{base_dir}/{meta.model_id}` an entry of the registry.

    A folder without a manifest is sealed first: the model is compiled, golden rows and digests are written.
    That opens its `model.joblib`, as the caller has just written it, unless `model` is given; `reference` is
    a matrix [rows, features] of training rows for the golden rows. A `failed` entry needs no artefacts.

    Args:
        meta: the run's metadata; it is written to meta.json where the folder has none.
        base_dir: the registry's folder.
        status: `success` or `failed`.
        max_models_per_symbol_tf: how many to keep per symbol, timeframe and model_type; older entries leave
            the index (never production, pinned or the rollback target).
        max_models: the old name of `max_models_per_symbol_tf`.
        model: the fitted model.
        reference: training rows.
        error: what went wrong, for a failed run.
        pins: model_ids that retention keeps; None asks the configuration.
        request_id: a job's own id: where it has registered a model already, that model's entry is the answer
            and nothing changes.
        actor: who registers; the default is user@host.
        via: cli, rpc, lab or python.

    Raises:
        InvalidArgumentError: a name can't be used, the id is taken, or the status is another.
        ArtifactError: the folder is not whole.
        StorageError: nothing was registered.
    """
    if status not in (Status.SUCCESS, Status.FAILED):
        raise InvalidArgumentError(
            f"a model is registered as success or failed, not {status!r}; promote_model moves it on",
            reason="INVALID_STATUS",
        )
    names = ("model_id", "symbol", "timeframe", "model_type")
    for name in names:
        check_name(name, getattr(meta, name))
    keep = max_models_per_symbol_tf if max_models_per_symbol_tf is not None else max_models
    if keep is not None and keep < 1:
        raise InvalidArgumentError("max_models_per_symbol_tf must be at least 1", reason="INVALID_LIMIT")
    base = Path(base_dir)
    store = open_store(base)
    request = [meta.symbol, meta.timeframe]
    earlier = _registered(store.view().state, request_id, request)
    if earlier is not None:
        return earlier
    folder = base / meta.model_id
    entry = ModelRegistryEntry(
        model_id=meta.model_id,
        symbol=meta.symbol,
        timeframe=meta.timeframe,
        model_type=meta.model_type,
        created_at=meta.created_at or _utc_now(),
        path=str(folder),
        cum_return=meta.metric("cum_return") if status == Status.SUCCESS else math.nan,
        sharpe=meta.metric("sharpe") if status == Status.SUCCESS else math.nan,
        status=status,
    )
    digest, detail = "", dict[str, Any]()
    if status == Status.SUCCESS:
        digest, detail = _take_digest(folder, entry, meta, model, reference)
        detail |= _tested(meta)
    else:
        detail = {"error": error or str(meta.extra.get("error", ""))}
    if request_id:
        detail["request_sha256"] = _fingerprint("register", request)
    with store.transaction(Origin(actor, via, request_id=request_id)) as transaction:
        earlier = _registered(transaction.state, request_id, request)
        if earlier is not None:
            return earlier
        transaction.commit(plan_register(transaction.state, entry, digest, detail))
        if keep is not None:
            retain(transaction, base, entry, keep, _pins(pins))
    _log.info("registry.registered", model_id=entry.model_id, status=status, digest=digest[:12])
    return entry


def _tested(meta: ModelMetadata) -> dict[str, Any]:
    """The bars that the training measured the model on, for the event."""
    try:
        span = [moment_of(meta.extra[name]).isoformat() for name in ("test_start", "test_end")]
    except (KeyError, TypeError, ValueError):
        return {}  # not every model is of our training
    return {"tested": span}


def _registered(state: RegistryState, request_id: str, request: Any) -> ModelRegistryEntry | None:
    """What an earlier register of this request_id made; None where there was none."""
    if _answered(state, request_id, "register", request) is None:
        return None
    return entry_of(state, state.requests[request_id].transitions[0].model_id)


def _take_digest(
    folder: Path, entry: ModelRegistryEntry, meta: ModelMetadata, model: Any, reference: np.ndarray | None
) -> tuple[str, dict[str, Any]]:
    if not (folder / MODEL_FILE).is_file():
        raise ArtifactError(
            f"{folder / MODEL_FILE} is missing: write the run directory before registering it"
        )
    if not (folder / META_FILE).exists():
        meta.write(folder / META_FILE)
    if (folder / MANIFEST_FILE).exists():
        digest = adopt_folder(folder, read_meta(folder, entry))
    else:
        stored = read_meta(folder, entry)
        fitted = model if model is not None else load_pickle(folder / MODEL_FILE)
        try:
            digest = seal(folder, stored, fitted, reference).digest
        except ArtifactError as error:
            # registered all the same, as research code always could; it can't be promoted
            _log.warning("registry.not_servable", model_id=entry.model_id, why=str(error))
            return "", {"not_sealed": str(error)}
    manifest = prove(folder.parent, entry, digest)
    return digest, {"engine": manifest.engine, "engine_reason": manifest.engine_reason}


def promote(
    base_dir: Path | str,
    promotions: Sequence[Promotion],
    *,
    reason: str = "",
    force: bool = False,
    policy: PromotionSettings | None = None,
    rules: TradingRules | None = None,
    request_id: str = "",
    actor: str = "",
    via: str = "python",
) -> Committed:
    """Put models into production: all or none, in one revision.

    Every model's files are verified now, against the digest in the log, and the gate (`registry.gate`) judges
    the evidence of its last evaluation by `policy`, which must have been simulated by `rules`
    (`Settings.trading_rules`); without a policy the configuration is asked for both. A repeat with the same
    `request_id` gets the first answer.

    Raises:
        UnknownModelError, StaleExpectationError, WrongStatusError, QuarantinedError, GateRefusedError,
        NotAdoptedError, ArtifactError, InvalidArgumentError, StorageError: nothing changed.
    """
    base, store = Path(base_dir), open_store(base_dir)
    request = [[item.model_id, item.expected_production_model_id] for item in promotions]
    gate = _gate(policy, rules)
    known = store.view().state
    if (answer := _answered(known, request_id, "promote", [request, force])) is not None:
        return answer
    # hashing takes time, so the bulk of it is done before the lock; under it the digest is compared again
    proven: dict[str, str] = {}
    for item in promotions:
        digest = known.digests.get(item.model_id, "")
        if item.model_id in known.entries and digest:
            prove(base, known.entries[item.model_id], digest)
            proven[item.model_id] = digest

    def decide(state: RegistryState) -> tuple[Draft, list[Transition]]:
        draft, results = plan_promote(state, promotions, gate, reason=reason, force=force)
        for item in promotions:
            digest = state.digests.get(item.model_id, "")
            if proven.get(item.model_id) != digest:
                verify(base, entry_of(state, item.model_id), digest)
        return draft, results

    with store.transaction(Origin(actor, via, reason, request_id)) as transaction:
        return _decide_and_commit(transaction, "promote", [request, force], decide)


def rollback(
    base_dir: Path | str,
    keys: Sequence[Key | tuple[str, str]],
    *,
    reason: str,
    request_id: str = "",
    actor: str = "",
    via: str = "python",
) -> Committed:
    """Take keys back to the newest earlier production model that verifies; all or none.

    The model left behind is quarantined. A nearer model that does not verify is passed over, and the event
    says so.

    Raises:
        UnknownKeyError, NothingToRollBackToError, InvalidArgumentError, StorageError: nothing changed.
    """
    base, wanted = Path(base_dir), [Key(*key) for key in keys]
    if not reason.strip():
        raise InvalidArgumentError("a rollback needs a reason", reason="REASON_REQUIRED")

    def decide(state: RegistryState) -> tuple[Draft, list[Transition]]:
        skipped: dict[str, str] = {}
        targets: dict[Key, str] = {}
        for key, candidates in rollback_candidates(state, wanted).items():
            target = _first_proven(base, state, candidates, skipped)
            if target is None:
                raise nothing_to_roll_back_to(key, skipped)
            targets[key] = target
        return plan_rollback(state, targets, skipped)

    with open_store(base).transaction(Origin(actor, via, reason, request_id)) as transaction:
        return _decide_and_commit(transaction, "rollback", [list(key) for key in wanted], decide)


def archive(
    base_dir: Path | str,
    model_ids: Sequence[str],
    *,
    reason: str = "",
    allow_unserved: bool = False,
    request_id: str = "",
    actor: str = "",
    via: str = "python",
) -> Committed:
    """Retire models: all or none. A production model needs `allow_unserved` and a reason.

    Raises:
        UnknownModelError, WrongStatusError, InProductionError, InvalidArgumentError, StorageError: nothing
        changed.
    """

    def decide(state: RegistryState) -> tuple[Draft, list[Transition]]:
        return plan_archive(state, model_ids, reason=reason, allow_unserved=allow_unserved)

    with open_store(base_dir).transaction(Origin(actor, via, reason, request_id)) as transaction:
        return _decide_and_commit(transaction, "archive", [list(model_ids), allow_unserved], decide)


def record_evaluation(
    base_dir: Path | str,
    evidence: Evidence,
    *,
    policy: PromotionSettings | None = None,
    rules: TradingRules | None = None,
    reason: str = "",
    request_id: str = "",
    actor: str = "",
    via: str = "python",
) -> Decision:
    """Keep an evaluation in the log, passed or not, and make its challenger a candidate where it passes.

    A repeat with the same `request_id` keeps nothing, and is judged by the evidence of the first.

    Raises:
        UnknownModelError, WrongStatusError, NotAdoptedError, ArtifactError, RequestIdReusedError, StorageError:
        nothing was kept.
    """
    base, gate = Path(base_dir), _gate(policy, rules)
    model_id = evidence.challenger.model_id
    with open_store(base).transaction(Origin(actor, via, reason, request_id)) as transaction:
        state = transaction.state
        entry = entry_of(state, model_id)
        if _answered(state, request_id, "evaluate", model_id) is not None:
            return gate.judge(state, entry, force=False)
        draft, decision = plan_evaluate(state, model_id, json_safe(evidence.to_dict()), gate)
        verify(base, entry, state.digests.get(model_id, ""))
        if request_id:
            detail = {**draft.detail, "request_sha256": _fingerprint("evaluate", model_id)}
            draft = replace(draft, detail=detail)
        event = transaction.commit(draft)
    _log.info(
        "registry.evaluated",
        revision=event.revision,
        model_id=model_id,
        passed=decision.allowed,
        failed_rules=[rule.name for rule in decision.failed],
    )
    return decision


def make_candidate(
    base_dir: Path | str,
    model_id: str,
    *,
    reason: str = "",
    force: bool = False,
    policy: PromotionSettings | None = None,
    rules: TradingRules | None = None,
    actor: str = "",
    via: str = "python",
) -> Committed:
    """Propose a model for production on its stored evidence, or restore an archived one to that.

    Raises:
        UnknownModelError, WrongStatusError, QuarantinedError, GateRefusedError, NotAdoptedError, ArtifactError,
        StorageError: nothing changed.
    """
    base, gate = Path(base_dir), _gate(policy, rules)

    def decide(state: RegistryState) -> tuple[Draft, list[Transition]]:
        draft, results = plan_candidate(state, model_id, gate, reason=reason, force=force)
        verify(base, entry_of(state, model_id), state.digests.get(model_id, ""))
        return draft, results

    with open_store(base).transaction(Origin(actor, via, reason)) as transaction:
        return _decide_and_commit(transaction, "candidate", model_id, decide)


def promote_model(
    model_id: str,
    stage: str = "production",
    base_dir: Path | str = DEFAULT_BASE_DIR,
    *,
    reason: str = "",
    force: bool = False,
    allow_unserved: bool = False,
    policy: PromotionSettings | None = None,
    rules: TradingRules | None = None,
    actor: str = "",
    via: str = "python",
) -> ModelRegistryEntry:
    """Move one model to a stage, `production`, `candidate` or `archived`, and give its entry.

    Raises:
        InvalidArgumentError: another stage; and the errors of `promote`, `make_candidate`, `archive`.
    """
    if stage == Status.PRODUCTION:
        promotion = Promotion(model_id)
        promote(
            base_dir,
            [promotion],
            reason=reason,
            force=force,
            policy=policy,
            rules=rules,
            actor=actor,
            via=via,
        )
    elif stage == Status.CANDIDATE:
        make_candidate(
            base_dir,
            model_id,
            reason=reason,
            force=force,
            policy=policy,
            rules=rules,
            actor=actor,
            via=via,
        )
    elif stage == Status.ARCHIVED:
        archive(base_dir, [model_id], reason=reason, allow_unserved=allow_unserved, actor=actor, via=via)
    else:
        raise InvalidArgumentError(
            f"stage is production, candidate or archived, not {stage!r}", reason="INVALID_STAGE"
        )
    return entry_of(open_store(base_dir).view().state, model_id)


def adopt(
    base_dir: Path | str, model_id: str, *, reason: str = "", actor: str = "", via: str = "python"
) -> str:
    """Take the digest of a legacy folder, on its owner's word, and give it.

    This opens the folder's `model.joblib`: only adopt what you trust. A model that already has a digest
    keeps it, if its files still fit.

    Raises:
        UnknownModelError, ArtifactError, StorageError: nothing changed.
    """
    base, store = Path(base_dir), open_store(base_dir)
    state = store.view().state
    entry = entry_of(state, model_id)
    known = state.digests.get(model_id, "")
    if known:
        verify(base, entry, known)
        return known
    if entry.status == Status.FAILED:
        raise ArtifactError(f"{model_id} is a failed training run: there is nothing to adopt")
    folder = run_dir(base, entry)
    digest = adopt_folder(folder, read_meta(folder, entry))
    manifest = prove(base, entry, digest)
    with store.transaction(Origin(actor, via, reason)) as transaction:
        present = entry_of(transaction.state, model_id)
        change = StatusChange(
            present.symbol, present.timeframe, model_id, present.status, present.status, digest
        )
        detail = {"engine": manifest.engine, "engine_reason": manifest.engine_reason}
        transaction.commit(Draft("adopt", (change,), detail))
    _log.info("registry.adopted", model_id=model_id, engine=manifest.engine, digest=digest[:12])
    return digest


def _first_proven(
    base: Path, state: RegistryState, candidates: Sequence[str], skipped: dict[str, str]
) -> str | None:
    for model_id in candidates:
        try:
            prove(base, state.entries[model_id], state.digests.get(model_id, ""))
        except (ArtifactError, NotAdoptedError) as error:
            skipped[model_id] = str(error)
            _log.warning("registry.rollback_passed_over", model_id=model_id, why=str(error))
        else:
            return model_id
    return None


def _fingerprint(action: str, request: Any) -> str:
    return sha256_hex(canonical([action, json_safe(request)]))


def _answered(state: RegistryState, request_id: str, action: str, request: Any) -> Committed | None:
    event = state.requests.get(request_id) if request_id else None
    if event is None:
        return None
    if event.detail.get("request_sha256") != _fingerprint(action, request):
        raise RequestIdReusedError(
            f"request_id {request_id!r} was used at revision {event.revision} for another request",
            metadata={"request_id": request_id, "revision": str(event.revision)},
        )
    return _committed(event, repeated=True)


def _committed(event: Event, *, repeated: bool = False) -> Committed:
    results = tuple(Transition(**item) for item in event.detail.get("result", ()))
    return Committed(event.revision, results, repeated)


def _decide_and_commit(
    transaction: Transaction,
    action: str,
    request: Any,
    decide: Callable[[RegistryState], tuple[Draft, list[Transition]]],
) -> Committed:
    origin = transaction.origin
    answer = _answered(transaction.state, origin.request_id, action, request)
    if answer is not None:
        return answer
    draft, results = decide(transaction.state)
    if not draft.transitions and not origin.request_id:
        return Committed(transaction.state.revision, tuple(results))
    detail: Mapping[str, Any] = draft.detail
    if origin.request_id:
        detail = {**draft.detail, "request_sha256": _fingerprint(action, request)}
    event = transaction.commit(replace(draft, detail=detail))
    for change in event.transitions:
        _log.info(
            f"registry.{event.action}",
            revision=event.revision,
            key=f"{change.symbol}/{change.timeframe}",
            model_id=change.model_id,
            before=change.before,
            after=change.after,
            actor=event.actor,
        )
    return _committed(event)


def _pins(pins: Iterable[str] | None) -> frozenset[str]:
    if pins is not None:
        return frozenset(pins)
    return load_settings().ml.pinned_ids()


def _gate(policy: PromotionSettings | None, rules: TradingRules | None) -> Gate:
    now = datetime.now(UTC)
    if policy is not None:
        return Gate(policy, rules, now)
    settings = load_settings()
    return Gate(settings.promotion, settings.trading_rules if rules is None else rules, now)


def _utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
