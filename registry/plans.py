"""From a state and a request to the change that one event commits.

1. Every function is pure: what it needs to know of files is handed in, and it answers with a `Draft`.
2. A draft covers the whole request or an error is raised: all or none, one revision.
3. Which steps there are, and what each asks, stands in `registry.lifecycle` and nowhere else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from signalserve.common.key import Key
from signalserve.common.moments import parse_moment
from signalserve.registry.entry import ModelRegistryEntry, Status
from signalserve.registry.errors import (
    GateRefusedError,
    InvalidArgumentError,
    NothingToRollBackToError,
    PreconditionError,
    QuarantinedError,
    StaleExpectationError,
    UnknownKeyError,
    UnknownModelError,
)
from signalserve.registry.events import Action, StatusChange, json_safe
from signalserve.registry.gate import Decision, Gate
from signalserve.registry.lifecycle import Case, first_step, step
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
class Transition:
    """What a call did to one key: the model that it was about, and what was in production before."""

    symbol: str
    timeframe: str
    model_id: str
    previous_model_id: str

    @classmethod
    def of(cls, state: RegistryState, entry: ModelRegistryEntry, gate: Gate) -> Transition:
        """That of an entry, before the call."""
        previous = state.standing(entry.key, hold=gate.holds_hand_edits)
        return cls(entry.symbol, entry.timeframe, entry.model_id, previous or "")


Planned = tuple[Draft, list[Transition]]


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
    change = first_step(entry.status).take(Case(state, entry), digest)
    return Draft(Action.REGISTER, (change,), {"entries": [entry.to_row()], **detail})


def plan_adopt(state: RegistryState, model_id: str, digest: str, detail: Mapping[str, Any]) -> Draft:
    """Take the digest of a model that has none; its status stays."""
    entry = entry_of(state, model_id)
    change = step(Action.ADOPT, entry).take(Case(state, entry), digest)
    return Draft(Action.ADOPT, (change,), detail)


def plan_promote(
    state: RegistryState, promotions: Sequence[Promotion], gate: Gate, *, reason: str, force: bool
) -> Planned:
    """Put models into production, at most one a key."""
    if not promotions:
        raise InvalidArgumentError("name at least one model to promote", reason="NO_PROMOTIONS")
    _force_has_a_reason("promote", reason, force=force)
    entries = [entry_of(state, promotion.model_id) for promotion in promotions]
    _one_a_key([entry.key for entry in entries])
    changes: list[StatusChange] = []
    cases: list[Case] = []
    for promotion, entry in zip(promotions, entries, strict=True):
        cases.append(case := Case(state, entry, gate, reason, force))
        _expected(promotion, entry.key, case.standing)
        by_decision = entry.model_id == case.standing and not state.is_by_hand(entry.model_id)
        if by_decision and entry.model_id == state.production(entry.key):
            changes.append(_stays(state, entry))  # it is there already: asking again changes nothing
            continue
        change = step(Action.PROMOTE, entry).take(case)
        # every production row of the key leaves, a second one that a hand edit made included
        changes += _superseded(state, entry.key, case.standing, but=(entry.model_id,))
        changes.append(change)
    decisions = [(case.entry.model_id, case.decision) for case in cases if case.decision is not None]
    if refused := [(model_id, decision) for model_id, decision in decisions if not decision.allowed]:
        raise _refusal(refused)
    evidence = {"decisions": [decision.record for _, decision in decisions]} if decisions else None
    results = [Transition.of(state, entry, gate) for entry in entries]
    return Draft(Action.PROMOTE, tuple(changes), _detail(results), evidence, forced=force), results


def plan_rollback(
    state: RegistryState, targets: Mapping[Key, str], skipped: Mapping[str, str], gate: Gate
) -> Planned:
    """Take each key back to its target; the model left behind is quarantined, and no other that goes with it.

    `targets` come from `rollback_candidates`, checked by the caller; `skipped` says which nearer models did
    not verify, and why.
    """
    changes: list[StatusChange] = []
    results: list[Transition] = []
    quarantined: list[str] = []
    for key, target in targets.items():
        entry = entry_of(state, target)
        case = Case(state, entry, gate)
        change = step(Action.ROLLBACK, entry).take(case)
        changes += [*_superseded(state, key, case.standing), change]
        if case.standing is not None:
            quarantined.append(case.standing)
        results.append(Transition.of(state, entry, gate))
    detail = {**_detail(results), "quarantined": quarantined, "skipped": dict(skipped)}
    return Draft(Action.ROLLBACK, tuple(changes), detail), results


def check_rollback_expected(
    state: RegistryState, keys: Sequence[Key], expected: Sequence[str], *, hold: bool
) -> None:
    """Compare what each key has with what the caller saw there; nothing expected fits anything.

    Raises:
        InvalidArgumentError: there is not one a key.
        StaleExpectationError: another model is in production.
    """
    if expected and len(expected) != len(keys):
        raise InvalidArgumentError(
            f"{len(expected)} expected models for {len(keys)} keys; give one a key, or none",
            reason="EXPECTED_MISMATCH",
        )
    for key, model_id in zip(keys, expected, strict=False):
        _expect(key, model_id, state.standing(key, hold=hold), "rolling back")


def rollback_candidates(state: RegistryState, keys: Sequence[Key], *, hold: bool) -> dict[Key, list[str]]:
    """For each key the earlier production models, the nearest first; `hold` as for `RegistryState.standing`.

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
        targets = state.rollback_targets(key, hold=hold)
        found[key] = [model_id for model_id in targets if state.digests.get(model_id)]
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
    state: RegistryState, model_ids: Sequence[str], gate: Gate, *, reason: str, allow_unserved: bool
) -> Planned:
    """Retire models; with a production model go the second rows of its key, which would be served instead."""
    if not model_ids:
        raise InvalidArgumentError("name at least one model to archive", reason="NO_MODELS")
    if len(set(model_ids)) != len(model_ids):
        raise InvalidArgumentError("a model is named twice", reason="DUPLICATE_MODEL")
    entries = [entry_of(state, model_id) for model_id in model_ids]
    changes = [
        step(Action.ARCHIVE, entry).take(Case(state, entry, gate, reason, allow_unserved=allow_unserved))
        for entry in entries
    ]
    for entry in entries:
        if entry.model_id == state.production(entry.key):
            changes += _superseded(state, entry.key, but=model_ids)
    results = [Transition.of(state, entry, gate) for entry in entries]
    return Draft(Action.ARCHIVE, tuple(changes), _detail(results)), results


def plan_evaluate(
    state: RegistryState, model_id: str, evidence: Mapping[str, Any], gate: Gate
) -> tuple[Draft, Decision]:
    """Keep an evaluation, and make the model a candidate where it passes the gate."""
    entry = entry_of(state, model_id)
    rises = step(Action.EVALUATE, entry)  # the table is asked before anything is judged
    judged = state.copy()
    judged.take_evidence(model_id, entry.key, evidence)
    case = Case(judged, entry, gate)
    change = rises.take(case)
    decision = _decision_of(case)
    changes = _real([change]) if decision.allowed else ()
    return Draft(Action.EVALUATE, changes, {"key": list(entry.key)}, decision.record), decision


def plan_look(state: RegistryState, model_id: str, first: str, last: str, rules: Mapping[str, Any]) -> Draft:
    """Keep that a model was measured on the bars from `first` to `last`; no status changes."""
    entry = entry_of(state, model_id)
    try:
        ordered = parse_moment(first) <= parse_moment(last)
    except ValueError as error:
        raise InvalidArgumentError(f"a look at bars has no span: {error}", reason="INVALID_SPAN") from error
    if not ordered:
        raise InvalidArgumentError(f"no bar is from {first} to {last}", reason="INVALID_SPAN")
    detail = {"key": list(entry.key), "model_id": model_id, "first": first, "last": last}
    return Draft(Action.LOOK, (), {**detail, "rules": json_safe(rules)})


def was_evaluated_on(
    state: RegistryState, model_id: str, first: str, last: str, rules: Mapping[str, Any]
) -> bool:
    """Whether a model's last evaluation was on these very bars, or more of them, by these rules.

    The bars before them that its labels have read are none that the evaluation left to see.
    """
    record = state.evidence.get(model_id)
    if record is None:
        return False
    horizon = record.get("challenger", {}).get("horizon_bars", 0)
    purged = timedelta(minutes=horizon * record.get("bar_minutes", 0.0))
    return (
        parse_moment(record["window_start"]) - purged <= parse_moment(first)
        and parse_moment(record["window_end"]) >= parse_moment(last)
        # an evaluation's have the champion's thresholds, too, where its scores are of another kind
        and json_safe(rules).items() <= record.get("rules", {}).items()
    )


def plan_candidate(state: RegistryState, model_id: str, gate: Gate, *, reason: str, force: bool) -> Planned:
    """Propose a model whose evidence passes, or bring an archived one back."""
    _force_has_a_reason("candidate", reason, force=force)
    entry = entry_of(state, model_id)
    action = Action.RESTORE if entry.status == Status.ARCHIVED else Action.CANDIDATE
    case = Case(state, entry, gate, reason, force)
    change = step(action, entry).take(case)
    results = [Transition.of(state, entry, gate)]
    if case.decision is None:  # it is one already
        return Draft(action, (change,), _detail(results)), results
    if not case.decision.allowed:
        raise _refusal([(model_id, case.decision)])
    evidence = {"decisions": [case.decision.record]}
    return Draft(action, (change,), _detail(results), evidence, forced=force), results


def plan_removal(
    state: RegistryState,
    action: str,
    model_id: str,
    *,
    metadata: Mapping[str, Any] | None,
    why: str,
    protected: Mapping[str, str],
) -> Draft:
    """Take an entry out of the index; the event, of this action, keeps its row and metadata."""
    entry = entry_of(state, model_id)
    change = step(Action.REMOVE, entry).take(Case(state, entry, protected=protected))
    removed = {"entry": entry.to_row(), "meta": metadata, "why": why}
    return Draft(action, (change,), {"removed": [removed]})


def _superseded(
    state: RegistryState, key: Key, standing: str | None = None, *, but: Collection[str] = ()
) -> list[StatusChange]:
    """All production rows of a key leave, and so does what stands for it though its row says success or candidate."""
    rows = [state.entries[model_id] for model_id in state.production_rows(key) if model_id not in but]
    if standing is not None and standing not in but:
        entry = state.entries[standing]
        rows += [entry] if entry.status in (Status.SUCCESS, Status.CANDIDATE) else []
    return [step(Action.SUPERSEDE, entry).take(Case(state, entry)) for entry in rows]


def _stays(state: RegistryState, entry: ModelRegistryEntry) -> StatusChange:
    """What names a model in the event of a call that has nothing to do."""
    digest = state.digests.get(entry.model_id, "")
    return StatusChange(*entry.key, entry.model_id, entry.status, entry.status, digest)


def _real(changes: Iterable[StatusChange]) -> tuple[StatusChange, ...]:
    return tuple(change for change in changes if change.before != change.after)


def _detail(results: Sequence[Transition]) -> dict[str, Any]:
    """What a retry gets as its answer."""
    return {"result": [asdict(result) for result in results]}


def _decision_of(case: Case) -> Decision:
    if case.decision is None:
        raise AssertionError("the step has no gate")
    return case.decision


def _force_has_a_reason(what: str, reason: str, *, force: bool) -> None:
    if force and not reason.strip():
        raise InvalidArgumentError(f"a forced {what} needs a reason", reason="REASON_REQUIRED")


def _one_a_key(keys: Sequence[Key]) -> None:
    seen: set[Key] = set()
    for key in keys:
        if key in seen:
            raise InvalidArgumentError(
                f"{key} is named more than once in one call",
                reason="DUPLICATE_KEY",
                metadata={"symbol": key.symbol, "timeframe": key.timeframe},
            )
        seen.add(key)


def _expected(promotion: Promotion, key: Key, current: str | None) -> None:
    if promotion.expected_production_model_id is not None:
        _expect(key, promotion.expected_production_model_id, current, "promoting")


def _expect(key: Key, expected: str, current: str | None, doing: str) -> None:
    if expected != (current or ""):
        raise StaleExpectationError(
            f"{key}: expected {expected or 'nothing'} in production, found {current or 'nothing'}; "
            f"look again before {doing}",
            metadata={
                "symbol": key.symbol,
                "timeframe": key.timeframe,
                "expected": expected,
                "current": current or "",
            },
        )


def _refusal(refused: Sequence[tuple[str, Decision]]) -> PreconditionError:
    """The error for models that the gate refused; each verdict against them with its numbers."""
    texts = [
        f"{model_id}: " + "; ".join(f"{verdict.name}: {verdict.text}" for verdict in decision.failed)
        for model_id, decision in refused
    ]
    names = dict.fromkeys(verdict.name for _, decision in refused for verdict in decision.failed)
    metadata = {"model_id": ",".join(model_id for model_id, _ in refused), "failed_verdicts": ",".join(names)}
    if list(names) == ["quarantined"]:
        return QuarantinedError("; ".join(texts), metadata=metadata)
    for name in names:
        found = {
            model_id: verdict.text
            for model_id, decision in refused
            for verdict in decision.failed
            if verdict.name == name
        }
        # of a basket each model has its own numbers
        metadata[f"verdict_{name}"] = (
            next(iter(found.values()))
            if len(refused) == 1
            else "; ".join(f"{model_id}: {text}" for model_id, text in found.items())
        )
    return GateRefusedError(f"the promote gate refused {'; '.join(texts)}", metadata=metadata)
