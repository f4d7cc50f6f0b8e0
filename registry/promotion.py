"""Moves between the stages of a model: each takes the lock, asks the lifecycle, commits one event."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from signalserve.common.key import Key
from signalserve.config.evidence import PromotionSettings
from signalserve.config.settings import load_settings
from signalserve.registry.answers import Committed, answered, commit, decide_and_commit
from signalserve.registry.artifacts import Proof, prove, verify
from signalserve.registry.entry import ModelRegistryEntry, Status
from signalserve.registry.errors import ArtifactError, InvalidArgumentError, NotAdoptedError
from signalserve.registry.events import json_safe
from signalserve.registry.evidence import Evidence
from signalserve.registry.gate import Decision
from signalserve.registry.lifecycle import (
    Gate,
    Promotion,
    Transition,
    entry_of,
    nothing_to_roll_back_to,
    plan_archive,
    plan_candidate,
    plan_evaluate,
    plan_promote,
    plan_rollback,
    rollback_candidates,
)
from signalserve.registry.state import RegistryState
from signalserve.registry.store import DEFAULT_BASE_DIR, Draft, Origin, open_store
from signalserve.trading.rules import TradingRules

OnProof = Callable[[str, Proof], None]

_log = structlog.get_logger("registry")


def promote(
    base_dir: Path | str,
    promotions: Sequence[Promotion],
    *,
    reason: str = "",
    force: bool = False,
    policy: PromotionSettings | None = None,
    rules: Mapping[str, Any] | None = None,
    request_id: str = "",
    actor: str = "",
    via: str = "python",
    on_proof: OnProof | None = None,
) -> Committed:
    """Put models into production: all or none, in one revision.

    Every model's files are verified now, against the digest in the log, and the gate (`registry.gate`) judges
    the evidence of its last evaluation by `policy`, which must have been simulated by `rules`
    (`asdict` of `TradingRules`); without a policy the configuration is asked for both. A repeat with the same
    `request_id` gets the first answer. `on_proof` is handed each model as it was opened for the proof.

    Raises:
        UnknownModelError, StaleExpectationError, WrongStatusError, QuarantinedError, GateRefusedError,
        NotAdoptedError, ArtifactError, InvalidArgumentError, StorageError: nothing changed.
    """
    base, store = Path(base_dir), open_store(base_dir)
    request = [[item.model_id, item.expected_production_model_id] for item in promotions]
    gate = _gate(policy, rules)
    known = store.view().state
    if (answer := answered(known, request_id, "promote", [request, force])) is not None:
        return answer
    # hashing takes time, so the bulk of it is done before the lock; under it the digest is compared again
    proven: dict[str, str] = {}
    for item in promotions:
        digest = known.digests.get(item.model_id, "")
        if item.model_id in known.entries and digest:
            proof = prove(base, known.entries[item.model_id], digest)
            if on_proof is not None:
                on_proof(item.model_id, proof)
            proven[item.model_id] = digest

    def decide(state: RegistryState) -> tuple[Draft, list[Transition]]:
        draft, results = plan_promote(state, promotions, gate, reason=reason, force=force)
        for item in promotions:
            digest = state.digests.get(item.model_id, "")
            if proven.get(item.model_id) != digest:
                verify(base, entry_of(state, item.model_id), digest)
        return draft, results

    with store.transaction(Origin(actor, via, reason, request_id)) as transaction:
        return decide_and_commit(transaction, "promote", [request, force], decide)


def rollback(
    base_dir: Path | str,
    keys: Sequence[Key | tuple[str, str]],
    *,
    reason: str,
    request_id: str = "",
    actor: str = "",
    via: str = "python",
    on_proof: OnProof | None = None,
) -> Committed:
    """Take keys back to the newest earlier production model that verifies; all or none.

    The model left behind is quarantined. A nearer model that does not verify is passed over, and the event
    says so. `on_proof` is as for `promote`.

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
            target = _first_proven(base, state, candidates, skipped, on_proof)
            if target is None:
                raise nothing_to_roll_back_to(key, skipped)
            targets[key] = target
        return plan_rollback(state, targets, skipped)

    with open_store(base).transaction(Origin(actor, via, reason, request_id)) as transaction:
        return decide_and_commit(transaction, "rollback", [list(key) for key in wanted], decide)


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
        return decide_and_commit(transaction, "archive", [list(model_ids), allow_unserved], decide)


def record_evaluation(
    base_dir: Path | str,
    evidence: Evidence,
    *,
    policy: PromotionSettings | None = None,
    rules: Mapping[str, Any] | None = None,
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
        if answered(state, request_id, "evaluate", model_id) is not None:
            return gate.judge(state, entry, force=False)
        draft, decision = plan_evaluate(state, model_id, json_safe(evidence.to_dict()), gate)
        verify(base, entry, state.digests.get(model_id, ""))
        event = commit(transaction, "evaluate", model_id, draft)
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
    rules: Mapping[str, Any] | None = None,
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
        return decide_and_commit(transaction, "candidate", model_id, decide)


def promote_model(
    model_id: str,
    stage: str = "production",
    base_dir: Path | str = DEFAULT_BASE_DIR,
    *,
    reason: str = "",
    force: bool = False,
    allow_unserved: bool = False,
    policy: PromotionSettings | None = None,
    rules: Mapping[str, Any] | None = None,
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


def _first_proven(
    base: Path,
    state: RegistryState,
    candidates: Sequence[str],
    skipped: dict[str, str],
    on_proof: OnProof | None,
) -> str | None:
    for model_id in candidates:
        try:
            proof = prove(base, state.entries[model_id], state.digests.get(model_id, ""))
        except (ArtifactError, NotAdoptedError) as error:
            skipped[model_id] = str(error)
            _log.warning("registry.rollback_passed_over", model_id=model_id, why=str(error))
        else:
            if on_proof is not None:
                on_proof(model_id, proof)
            return model_id
    return None


def _gate(policy: PromotionSettings | None, rules: Mapping[str, Any] | None) -> Gate:
    now = datetime.now(UTC)
    if policy is not None:
        return Gate(policy, rules, now)
    settings = load_settings()
    return Gate(
        settings.promotion, asdict(TradingRules.of(settings.trading)) if rules is None else rules, now
    )
