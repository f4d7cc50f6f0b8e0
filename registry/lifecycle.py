"""The lifecycle's rules: from a state and a request to the change that one event commits.

    from                  to           action               guards
    -                     success      register             id unused
    -                     failed       register             id unused
    success               candidate    evaluate             digest taken, gate
    success               candidate    candidate            digest taken, gate on stored evidence
    success, candidate    production   promote              compare-and-set, digest taken, gate
    production            archived     promote (of another), archive (allow_unserved and a reason)
    success, candidate    archived     archive
    archived              candidate    evaluate, restore    as from success; not quarantined
    archived              production   promote              as above, and force
    archived              production   rollback             was production of the key, not quarantined
    any but production    (deleted)    clean, retention     neither pinned nor the rollback target

1. Every function is pure: what it needs to know of files is handed in, and it answers with a `Draft`.
2. A draft covers the whole request or an error is raised: all or none, one revision.
3. `force` goes past the gate and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from signalserve.common.key import Key
from signalserve.config.evidence import PromotionSettings
from signalserve.registry.entry import ModelRegistryEntry, Status
from signalserve.registry.errors import (
    GateRefusedError,
    InProductionError,
    InvalidArgumentError,
    NotAdoptedError,
    NothingToRollBackToError,
    PreconditionError,
    QuarantinedError,
    StaleExpectationError,
    UnknownKeyError,
    UnknownModelError,
    WrongStatusError,
)
from signalserve.registry.events import StatusChange
from signalserve.registry.gate import Decision, decide
from signalserve.registry.state import RegistryState
from signalserve.registry.store import Draft


@dataclass(frozen=True)
class Promotion:
    """One model of a promote.

    `expected_production_model_id`: the model that must be in production now; None: not checked; empty: the
    key must have none.
    """

    model_id: str
    expected_production_model_id: str | None = None


@dataclass(frozen=True)
class Gate:
    """What the gate decides by: the bounds, the rules of a simulation (None: not asked), and the time."""

    policy: PromotionSettings
    rules: Mapping[str, Any] | None
    now: datetime

    def judge(self, state: RegistryState, entry: ModelRegistryEntry, *, force: bool) -> Decision:
        """Hold a model's stored evidence against the rules."""
        evidence = state.evidence.get(entry.model_id)
        tries = 0
        if evidence is not None:
            tries = state.tries(entry.key, evidence["window_start"], evidence["window_end"])
        return decide(
            challenger=entry.model_id,
            champion=state.production(entry.key),
            digests=state.digests,
            quarantined=entry.model_id in state.quarantined,
            evidence=evidence,
            tries=tries,
            policy=self.policy,
            rules=self.rules,
            now=self.now,
            force=force,
        )


@dataclass(frozen=True)
class Transition:
    """What a call did to one key: the model that it was about, and what was in production before."""

    symbol: str
    timeframe: str
    model_id: str
    previous_model_id: str

    def to_dict(self) -> dict[str, str]:
        """As the event keeps it for a retry."""
        return {
            "symbol": self.symbol,
            "timeframe": self.timeframe,
            "model_id": self.model_id,
            "previous_model_id": self.previous_model_id,
        }


def entry_of(state: RegistryState, model_id: str) -> ModelRegistryEntry:
    """The entry of an id.

    Raises:
        UnknownModelError: there is none.
    """
    try:
        return state.entries[model_id]
    except KeyError:
        raise UnknownModelError(model_id) from None


def plan_register(
    state: RegistryState, entry: ModelRegistryEntry, digest: str, detail: Mapping[str, Any]
) -> Draft:
    """A new entry of status success or failed."""
    if entry.model_id in state.entries or entry.model_id in state.used_ids:
        raise InvalidArgumentError(
            f"model_id {entry.model_id!r} is taken; every training run needs its own",
            reason="MODEL_ID_TAKEN",
            metadata={"model_id": entry.model_id},
        )
    change = StatusChange(entry.symbol, entry.timeframe, entry.model_id, None, entry.status, digest)
    return Draft("register", (change,), {"entries": [entry.to_row()], **detail})


def plan_promote(
    state: RegistryState, promotions: Sequence[Promotion], gate: Gate, *, reason: str, force: bool
) -> tuple[Draft, list[Transition]]:
    """Put models into production, at most one a key."""
    if not promotions:
        raise InvalidArgumentError("name at least one model to promote", reason="NO_PROMOTIONS")
    if force and not reason.strip():
        raise InvalidArgumentError("a forced promote needs a reason", reason="REASON_REQUIRED")
    entries = [entry_of(state, promotion.model_id) for promotion in promotions]
    _one_a_key([entry.key for entry in entries])
    changes: list[StatusChange] = []
    results: list[Transition] = []
    records: list[Mapping[str, Any]] = []
    refused: list[tuple[str, Decision]] = []
    for promotion, entry in zip(promotions, entries, strict=True):
        current = state.production(entry.key)
        _expected(promotion, entry.key, current)
        results.append(Transition(entry.symbol, entry.timeframe, entry.model_id, current or ""))
        if entry.model_id == current:
            continue  # it is there already: asking again changes nothing
        _may_be_promoted(state, entry, force=force)
        digest = state.digests.get(entry.model_id)
        if not digest:
            raise NotAdoptedError(entry.model_id)
        decision = gate.judge(state, entry, force=force)
        if not decision.allowed:
            refused.append((entry.model_id, decision))
        records.append(decision.record)
        # every production row of the key leaves, a second one that a hand edit made included
        changes += [
            _change(state, state.entries[other], Status.ARCHIVED)
            for other in state.production_rows(entry.key)
            if other != entry.model_id
        ]
        changes.append(_change(state, entry, Status.PRODUCTION))
    if refused:
        raise _refusal(refused)
    evidence = {"decisions": records} if records else None
    detail = {"result": [result.to_dict() for result in results]}
    return Draft("promote", tuple(changes), detail, evidence, forced=force), results


def _may_be_promoted(state: RegistryState, entry: ModelRegistryEntry, *, force: bool) -> None:
    if entry.status in (Status.SUCCESS, Status.CANDIDATE, Status.PRODUCTION):
        return
    if entry.status == Status.ARCHIVED and (force or entry.model_id in state.quarantined):
        return  # without force the gate names the quarantine
    hint = {
        Status.FAILED.value: "a failed training run is never served",
        Status.ARCHIVED.value: f"`signalserve evaluate {entry.model_id}` makes it a candidate again where it "
        "passes; a rollback takes the key back to it where it was the model before; force and a reason promote "
        "it as it is",
    }[entry.status]
    raise WrongStatusError(
        f"{entry.model_id} is {entry.status}, not success or candidate: {hint}",
        metadata={"model_id": entry.model_id, "status": entry.status},
    )


def plan_rollback(
    state: RegistryState, targets: Mapping[Key, str], skipped: Mapping[str, str]
) -> tuple[Draft, list[Transition]]:
    """Take each key back to its target; the model left behind is quarantined.

    `targets` come from `rollback_candidates`, checked by the caller; `skipped` says which nearer models did
    not verify, and why.
    """
    changes: list[StatusChange] = []
    results: list[Transition] = []
    quarantined: list[str] = []
    for key, target in targets.items():
        rows = state.production_rows(key)
        for other in rows:
            changes.append(_change(state, state.entries[other], Status.ARCHIVED))
            quarantined.append(other)
        changes.append(_change(state, state.entries[target], Status.PRODUCTION))
        results.append(Transition(key.symbol, key.timeframe, target, rows[-1] if rows else ""))
    detail = {
        "result": [result.to_dict() for result in results],
        "quarantined": quarantined,
        "skipped": dict(skipped),
    }
    return Draft("rollback", tuple(changes), detail), results


def rollback_candidates(state: RegistryState, keys: Sequence[Key]) -> dict[Key, list[str]]:
    """For each key the earlier production models, the nearest first.

    Raises:
        UnknownKeyError: the registry has no model of a key.
        NothingToRollBackToError: a key has no earlier model.
    """
    if not keys:
        raise InvalidArgumentError("name at least one key to roll back", reason="NO_KEYS")
    _one_a_key(keys)
    found: dict[Key, list[str]] = {}
    known = state.keys()
    for key in keys:
        if key not in known:
            raise UnknownKeyError(*key)
        found[key] = [model_id for model_id in state.rollback_targets(key) if state.digests.get(model_id)]
        if not found[key]:
            raise nothing_to_roll_back_to(key, {})
    return found


def nothing_to_roll_back_to(key: Key, skipped: Mapping[str, str]) -> NothingToRollBackToError:
    """The error for a key without a target; `skipped` are the ones that did not verify."""
    why = "".join(f"; {model_id} does not verify: {problem}" for model_id, problem in skipped.items())
    return NothingToRollBackToError(
        f"{key} has no earlier production model that verifies and is not quarantined{why}",
        metadata={"symbol": key.symbol, "timeframe": key.timeframe},
    )


def plan_archive(
    state: RegistryState, model_ids: Sequence[str], *, reason: str, allow_unserved: bool
) -> tuple[Draft, list[Transition]]:
    """Retire models."""
    if not model_ids:
        raise InvalidArgumentError("name at least one model to archive", reason="NO_MODELS")
    if len(set(model_ids)) != len(model_ids):
        raise InvalidArgumentError("a model is named twice", reason="DUPLICATE_MODEL")
    changes: list[StatusChange] = []
    results: list[Transition] = []
    for model_id in model_ids:
        entry = entry_of(state, model_id)
        current = state.production(entry.key)
        results.append(Transition(entry.symbol, entry.timeframe, model_id, current or ""))
        if entry.status == Status.ARCHIVED:
            continue
        if entry.status == Status.FAILED:
            raise WrongStatusError(
                f"{model_id} is a failed training run; it was never served and `registry clean` removes it",
                metadata={"model_id": model_id, "status": entry.status},
            )
        if model_id == current:
            if not allow_unserved:
                raise InProductionError(
                    f"{model_id} is in production for {entry.key}; promote another model, roll back, or say "
                    "allow_unserved and a reason to leave the key with none",
                    metadata={"model_id": model_id},
                )
            if not reason.strip():
                raise InvalidArgumentError(
                    "taking a production model away needs a reason", reason="REASON_REQUIRED"
                )
        changes.append(_change(state, entry, Status.ARCHIVED))
    return Draft("archive", tuple(changes), {"result": [result.to_dict() for result in results]}), results


def plan_evaluate(
    state: RegistryState, model_id: str, evidence: Mapping[str, Any], gate: Gate
) -> tuple[Draft, Decision]:
    """Keep an evaluation, and make the model a candidate where it passes the gate."""
    entry = entry_of(state, model_id)
    _may_be_evaluated(state, entry)
    judged = state.copy()
    judged.take_evidence(model_id, entry.key, evidence)
    decision = gate.judge(judged, entry, force=False)
    rises = decision.allowed and entry.status in (Status.SUCCESS, Status.ARCHIVED)
    changes = (_change(state, entry, Status.CANDIDATE),) if rises else ()
    return Draft("evaluate", changes, {"key": list(entry.key)}, decision.record), decision


def _may_be_evaluated(state: RegistryState, entry: ModelRegistryEntry) -> None:
    if entry.status not in (Status.SUCCESS, Status.CANDIDATE, Status.ARCHIVED):
        hint = {
            Status.FAILED.value: "a failed training run has nothing to measure",
            Status.PRODUCTION.value: "it is the champion that others are compared with",
        }[entry.status]
        raise WrongStatusError(
            f"{entry.model_id} is {entry.status}: {hint}",
            metadata={"model_id": entry.model_id, "status": entry.status},
        )
    if not state.digests.get(entry.model_id):
        raise NotAdoptedError(entry.model_id)


def plan_candidate(
    state: RegistryState, model_id: str, gate: Gate, *, reason: str, force: bool
) -> tuple[Draft, list[Transition]]:
    """Propose a model whose evidence passes, or bring an archived one back."""
    if force and not reason.strip():
        raise InvalidArgumentError("a forced candidate needs a reason", reason="REASON_REQUIRED")
    entry = entry_of(state, model_id)
    current = state.production(entry.key)
    results = [Transition(entry.symbol, entry.timeframe, model_id, current or "")]
    detail = {"result": [result.to_dict() for result in results]}
    if entry.status == Status.CANDIDATE:
        return Draft("candidate", (), detail), results
    if entry.status not in (Status.SUCCESS, Status.ARCHIVED):
        raise WrongStatusError(
            f"{model_id} is {entry.status}; only success and archived models become candidates",
            metadata={"model_id": model_id, "status": entry.status},
        )
    if model_id in state.quarantined:
        raise QuarantinedError(
            f"{model_id} was rolled back from and is quarantined; train another, or promote it with force "
            "and a reason",
            metadata={"model_id": model_id},
        )
    if not state.digests.get(model_id):
        raise NotAdoptedError(model_id)
    decision = gate.judge(state, entry, force=force)
    if not decision.allowed:
        raise _refusal([(model_id, decision)])
    action = "candidate" if entry.status == Status.SUCCESS else "restore"
    changes = (_change(state, entry, Status.CANDIDATE),)
    return Draft(action, changes, detail, {"decisions": [decision.record]}, forced=force), results


def plan_removal(
    state: RegistryState,
    action: str,
    model_ids: Iterable[str],
    metadata: Mapping[str, Any],
    why: Mapping[str, str],
) -> Draft:
    """Take entries out of the index; the event keeps their rows and metadata."""
    entries = [entry_of(state, model_id) for model_id in model_ids]
    return Draft(
        action,
        tuple(_change(state, entry, None) for entry in entries),
        {
            "removed": [
                {
                    "entry": entry.to_row(),
                    "meta": metadata.get(entry.model_id),
                    "why": why.get(entry.model_id, ""),
                }
                for entry in entries
            ]
        },
    )


def _change(state: RegistryState, entry: ModelRegistryEntry, after: Status | None) -> StatusChange:
    return StatusChange(
        entry.symbol,
        entry.timeframe,
        entry.model_id,
        entry.status,
        after.value if after else None,
        state.digests.get(entry.model_id, ""),
    )


def _one_a_key(keys: Sequence[Key]) -> None:
    for key in keys:
        if keys.count(key) > 1:
            raise InvalidArgumentError(
                f"{key} is named more than once in one call",
                reason="DUPLICATE_KEY",
                metadata={"symbol": key.symbol, "timeframe": key.timeframe},
            )


def _expected(promotion: Promotion, key: Key, current: str | None) -> None:
    expected = promotion.expected_production_model_id
    if expected is not None and expected != (current or ""):
        raise StaleExpectationError(
            f"{key}: expected {expected or 'nothing'} in production, found {current or 'nothing'}; "
            "look again before promoting",
            metadata={
                "symbol": key.symbol,
                "timeframe": key.timeframe,
                "expected": expected,
                "current": current or "",
            },
        )


def _refusal(refused: Sequence[tuple[str, Decision]]) -> PreconditionError:
    """The error for models that the gate refused; each failed rule with its numbers."""
    texts = [
        f"{model_id}: " + "; ".join(f"{rule.name}: {rule.text}" for rule in decision.failed)
        for model_id, decision in refused
    ]
    names = dict.fromkeys(rule.name for _, decision in refused for rule in decision.failed)
    metadata = {"model_id": ",".join(model_id for model_id, _ in refused), "failed_rules": ",".join(names)}
    if list(names) == ["quarantined"]:
        return QuarantinedError("; ".join(texts), metadata=metadata)
    for name in names:
        found = {
            model_id: rule.text
            for model_id, decision in refused
            for rule in decision.failed
            if rule.name == name
        }
        # of a basket each model has its own numbers
        metadata[f"rule_{name}"] = (
            next(iter(found.values()))
            if len(refused) == 1
            else "; ".join(f"{model_id}: {text}" for model_id, text in found.items())
        )
    return GateRefusedError(f"the promote gate refused {'; '.join(texts)}", metadata=metadata)
