"""The lifecycle of a model: the steps there are, and the guards of each. The code looks a step up here.

    action      from                  to           guards
    register    -                     success      its id was never used
    register    -                     failed       likewise
    evaluate    success, archived     candidate    a digest, the gate
    evaluate    candidate             candidate    a digest
    evaluate    production            production   put there by hand, a digest
    candidate   success               candidate    not quarantined, a digest, the gate
    candidate   candidate             candidate
    restore     archived              candidate    not quarantined, a digest, the gate
    promote     success, candidate    production   a digest, the gate
    promote     production            production   likewise: a second row by hand, or the one there by hand
    promote     archived              production   force, a digest, the gate
    supersede   production            archived
    supersede   success, candidate    archived     what is served though its row was edited away
    rollback    archived              production   was production of the key, not quarantined, a digest
    archive     production            archived     a word that the key may be left with none, and a reason
    archive     success, candidate    archived     likewise of what is served though its row was edited away
    archive     archived              archived     likewise
    adopt       success               success
    adopt       candidate             candidate
    adopt       production            production
    adopt       archived              archived
    remove      any but production    (deleted)    neither pinned nor the rollback target

1. A step that is not in the table does not exist: `step` refuses it, and says what there is instead.
2. Guards are tried in the order in which they stand. `force` goes past the gate and the guard of that name, and
   past nothing else.
3. What is served though its row was edited away, where edits are held, is put back by a promote without the gate and
   without force: that decides nothing new.
4. Compare-and-set is asked before the step is looked up, and integrity after every guard: they belong to the call,
   whatever the step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from signalserve.registry.entry import ModelRegistryEntry, Status
from signalserve.registry.errors import (
    InProductionError,
    InvalidArgumentError,
    NothingToRollBackToError,
    PreconditionError,
    QuarantinedError,
    WrongStatusError,
    no_digest,
)
from signalserve.registry.events import Action, StatusChange
from signalserve.registry.gate import Decision, Gate, NoGate
from signalserve.registry.state import RegistryState


@dataclass
class Case:
    """One model before a step, and what the call says. `decision` is the gate's, once it was asked."""

    state: RegistryState
    entry: ModelRegistryEntry
    gate: Gate = field(default_factory=NoGate)
    reason: str = ""
    force: bool = False
    allow_unserved: bool = False
    protected: Mapping[str, str] = field(default_factory=dict)
    decision: Decision | None = None

    @property
    def standing(self) -> str | None:
        """What its key has now; see `RegistryState.standing`."""
        return self.state.standing(self.entry.key, hold=self.gate.holds_hand_edits)

    @property
    def was_edited_away(self) -> bool:
        """Whether it is served, by a decision, and its row says otherwise."""
        state, model_id = self.state, self.entry.model_id
        return self.standing == model_id != state.production(self.entry.key) and not state.is_by_hand(
            model_id, hold=self.gate.holds_hand_edits
        )

    @property
    def facts(self) -> dict[str, str]:
        """What an error about it tells programs."""
        return {"model_id": self.entry.model_id, "status": self.entry.status}


Guard = Callable[[Case], None]


def _unused_id(case: Case) -> None:
    model_id = case.entry.model_id
    if model_id in case.state.entries or model_id in case.state.used_ids:
        raise InvalidArgumentError(
            f"model_id {model_id!r} is taken; every training run needs its own",
            reason="MODEL_ID_TAKEN",
            metadata={"model_id": model_id},
        )


def _digest(case: Case) -> None:
    if not case.state.digests.get(case.entry.model_id):
        raise no_digest(case.entry.model_id, case.state.not_servable.get(case.entry.model_id, ""))


def _gate(case: Case) -> None:
    case.decision = case.gate.judge(case.state, case.entry, force=case.force)


def _by_hand(case: Case) -> None:
    if not case.state.is_by_hand(case.entry.model_id):
        raise WrongStatusError(
            f"{case.entry.model_id} is production: it is the champion that others are compared with",
            metadata=case.facts,
        )


def _gate_of_new(case: Case) -> None:
    if not case.was_edited_away:
        _gate(case)


def _not_quarantined(case: Case) -> None:
    if case.entry.model_id in case.state.quarantined:
        raise QuarantinedError(
            f"{case.entry.model_id} was rolled back from and is quarantined; train another, or promote it with force "
            "and a reason",
            metadata={"model_id": case.entry.model_id},
        )


def _force(case: Case) -> None:
    # of a quarantined model the gate says so
    if not case.force and not case.was_edited_away and case.entry.model_id not in case.state.quarantined:
        raise WrongStatusError(
            f"{case.entry.model_id} is archived, not success or candidate: `signalserve evaluate "
            f"{case.entry.model_id}` makes it a candidate again where it passes; a rollback takes the key back to it "
            "where it was the model before; force and a reason promote it as it is",
            metadata=case.facts,
        )


def _was_production(case: Case) -> None:
    targets = case.state.rollback_targets(case.entry.key, hold=case.gate.holds_hand_edits)
    if case.entry.model_id not in targets:
        raise NothingToRollBackToError(
            f"{case.entry.model_id} was never in production for {case.entry.key}, or is quarantined",
            metadata=case.facts,
        )


def _may_leave_none(case: Case) -> None:
    if case.standing != case.entry.model_id:
        return  # nor does a second row that a hand edit made serve anything
    if not case.allow_unserved:
        raise InProductionError(
            f"{case.entry.model_id} is in production for {case.entry.key}; promote another model, roll back, or say "
            "allow_unserved and a reason to leave the key with none",
            metadata={"model_id": case.entry.model_id},
        )
    if not case.reason.strip():
        raise InvalidArgumentError("taking a production model away needs a reason", reason="REASON_REQUIRED")


def _not_protected(case: Case) -> None:
    why = case.protected.get(case.entry.model_id)
    if why is not None:
        raise PreconditionError(f"{case.entry.model_id} stays: it is {why}", metadata=case.facts)


@dataclass(frozen=True)
class Step:
    """One row of the table; `after` None: the entry is deleted."""

    action: Action
    before: Status | None
    after: Status | None
    guards: tuple[Guard, ...] = ()

    def take(self, case: Case, digest: str = "") -> StatusChange:
        """Try the guards and give the change of status, which may be none (before and after are the same).

        `digest` is the one that the step takes; where it takes none, the one that is known goes into the event.

        Raises:
            CallerError: a guard says no. What the gate says is left in `case.decision`.
        """
        for guard in self.guards:
            guard(case)
        entry = case.entry
        return StatusChange(
            entry.symbol,
            entry.timeframe,
            entry.model_id,
            self.before.value if self.before is not None else None,
            self.after.value if self.after is not None else None,
            digest or case.state.digests.get(entry.model_id, ""),
        )


_SUCCESS, _CANDIDATE, _PRODUCTION = Status.SUCCESS, Status.CANDIDATE, Status.PRODUCTION
_ARCHIVED, _FAILED = Status.ARCHIVED, Status.FAILED
_TO_CANDIDATE = (_not_quarantined, _digest, _gate)

STEPS: tuple[Step, ...] = (
    Step(Action.REGISTER, None, _SUCCESS, (_unused_id,)),
    Step(Action.REGISTER, None, _FAILED, (_unused_id,)),
    Step(Action.EVALUATE, _SUCCESS, _CANDIDATE, (_digest, _gate)),
    Step(Action.EVALUATE, _ARCHIVED, _CANDIDATE, (_digest, _gate)),
    Step(Action.EVALUATE, _CANDIDATE, _CANDIDATE, (_digest, _gate)),
    Step(Action.EVALUATE, _PRODUCTION, _PRODUCTION, (_by_hand, _digest, _gate)),
    Step(Action.CANDIDATE, _SUCCESS, _CANDIDATE, _TO_CANDIDATE),
    Step(Action.CANDIDATE, _CANDIDATE, _CANDIDATE),
    Step(Action.RESTORE, _ARCHIVED, _CANDIDATE, _TO_CANDIDATE),
    Step(Action.PROMOTE, _SUCCESS, _PRODUCTION, (_digest, _gate_of_new)),
    Step(Action.PROMOTE, _CANDIDATE, _PRODUCTION, (_digest, _gate_of_new)),
    Step(Action.PROMOTE, _PRODUCTION, _PRODUCTION, (_digest, _gate)),
    Step(Action.PROMOTE, _ARCHIVED, _PRODUCTION, (_force, _digest, _gate_of_new)),
    *(Step(Action.SUPERSEDE, status, _ARCHIVED) for status in (_PRODUCTION, _SUCCESS, _CANDIDATE)),
    Step(Action.ROLLBACK, _ARCHIVED, _PRODUCTION, (_was_production, _digest)),
    *(Step(Action.ARCHIVE, status, _ARCHIVED, (_may_leave_none,)) for status in Status if status != _FAILED),
    *(Step(Action.ADOPT, status, status) for status in Status if status != _FAILED),
    *(Step(Action.REMOVE, status, None, (_not_protected,)) for status in Status if status != _PRODUCTION),
)

_BY_ACTION = {(step.action, step.before, step.after): step for step in STEPS}
_BY_STATUS = {(step.action, step.before): step for step in STEPS}

# what to do instead, where the table has no step
_INSTEAD = {
    (Action.EVALUATE, _FAILED): "a failed training run has nothing to measure",
    (Action.CANDIDATE, _FAILED): "only success and archived models become candidates",
    (Action.CANDIDATE, _PRODUCTION): "only success and archived models become candidates",
    (Action.PROMOTE, _FAILED): "a failed training run is never served",
    (Action.ADOPT, _FAILED): "a failed training run has nothing to adopt",
    (Action.ARCHIVE, _FAILED): "it was never served and `registry clean` removes it",
}


def first_step(after: str) -> Step:
    """The step that makes an entry of this status.

    Raises:
        InvalidArgumentError: no entry begins with it.
    """
    found = _BY_ACTION.get((Action.REGISTER, None, Status(after) if after in set(Status) else None))
    if found is None:
        raise InvalidArgumentError(
            f"a model is registered as success or failed, not {after!r}; promote_model moves it on",
            reason="INVALID_STATUS",
        )
    return found


def check_measurable(state: RegistryState, entry: ModelRegistryEntry) -> None:
    """See that a model may be evaluated, before anything is measured.

    Raises:
        WrongStatusError: it failed, or is the champion.
    """
    if _by_hand in step(Action.EVALUATE, entry).guards:
        _by_hand(Case(state, entry))


def step(action: Action, entry: ModelRegistryEntry) -> Step:
    """The step that an action is for a model of this status.

    Raises:
        WrongStatusError: the table has none; it says what there is instead.
    """
    status = Status(entry.status)
    found = _BY_STATUS.get((action, status))
    if found is None:
        instead = _INSTEAD.get((action, status), f"the lifecycle has no step {action} from there")
        raise WrongStatusError(
            f"{entry.model_id} is {status}: {instead}",
            metadata={"model_id": entry.model_id, "status": status.value},
        )
    return found
