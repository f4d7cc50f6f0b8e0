"""Moves between the stages of a model: each takes the lock, asks the lifecycle, commits one event."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from signalserve.common.key import Key
from signalserve.common.log import LibraryLog
from signalserve.registry.answers import Committed, Looked, answered, commit, decide_and_commit
from signalserve.registry.entry import ModelRegistryEntry, Status
from signalserve.registry.errors import InvalidArgumentError
from signalserve.registry.events import Action, json_safe
from signalserve.registry.gate import Decision
from signalserve.registry.parts import Parts
from signalserve.registry.plans import (
    Planned,
    Promotion,
    entry_of,
    plan_archive,
    plan_candidate,
    plan_evaluate,
    plan_look,
    plan_promote,
    plan_rollback,
    was_evaluated_on,
)
from signalserve.registry.proving import Proofs, Prove, proven_here, tried_again
from signalserve.registry.state import RegistryState
from signalserve.registry.store import Origin

_log = LibraryLog("registry")


def _nothing() -> None:
    """The caller waits for as long as it takes."""


class Moves(Parts):
    """Promote, rollback, archive, evaluate, propose."""

    def promote(
        self,
        promotions: Sequence[Promotion | str],
        *,
        reason: str = "",
        force: bool = False,
        request_id: str = "",
        actor: str = "",
        via: str = "python",
        prove: Prove = proven_here,
        before_commit: Callable[[], None] = _nothing,
    ) -> Committed:
        """Put models into production, by their ids or with what is expected: all or none, in one revision.

        Every model's files are verified now, against the digest in the log, and the gate judges the evidence of
        its last evaluation. A repeat with the same `request_id` gets the first answer. `prove` is how each model is
        proven before the lock is taken; no force passes it. By default a model of which the registration said that it
        will not be served is opened in a fresh process, for a minute at most, and refused where that fails.
        `before_commit` is called under the lock, and what it raises stops the change.

        Raises:
            UnknownModelError, StaleExpectationError, WrongStatusError, QuarantinedError, GateRefusedError,
            NotAdoptedError, NotServableError, ArtefactError, InvalidArgumentError, StorageError: nothing changed.
        """
        wanted = [Promotion(item) if isinstance(item, str) else item for item in promotions]
        request = [[item.model_id, item.expected_production_model_id] for item in wanted]
        proofs = Proofs(self.artefact_of, prove)

        def decide(state: RegistryState) -> Planned:
            planned = plan_promote(state, wanted, self.gate, reason=reason, force=force)
            for item in wanted:
                proofs.check(state, item.model_id)
            before_commit()
            return planned

        def attempt() -> Committed:
            known = self.state
            if (answer := answered(known, request_id, Action.PROMOTE, [request, force])) is not None:
                return answer
            for item in wanted:
                if item.model_id in known.entries and known.digests.get(item.model_id):
                    proofs.make(known, item.model_id)
            with self.store.transaction(Origin(actor, via, reason, request_id)) as transaction:
                return decide_and_commit(transaction, Action.PROMOTE, [request, force], decide)

        return tried_again(attempt)

    def rollback(
        self,
        keys: Sequence[Key | tuple[str, str]],
        *,
        reason: str,
        expected: Sequence[str] = (),
        request_id: str = "",
        actor: str = "",
        via: str = "python",
        prove: Prove = proven_here,
        before_commit: Callable[[], None] = _nothing,
    ) -> Committed:
        """Take keys back to the newest earlier production model that verifies; all or none.

        `expected`: what is in production of each key, in their order, if it shall be that and no other.

        The model left behind is quarantined. A nearer model that does not verify is passed over, and the event
        says so. `prove` and `before_commit` are as for `promote`.

        Raises:
            UnknownKeyError, NothingToRollBackToError, StaleExpectationError, InvalidArgumentError, StorageError:
            nothing changed.
        """
        wanted = [Key(*key) for key in keys]
        if not reason.strip():
            raise InvalidArgumentError("a rollback needs a reason", reason="REASON_REQUIRED")

        asked: list[list[str]] = [list(key) for key in wanted]
        request = [asked, list(expected)] if expected else asked
        hold = self.holds_hand_edits
        proofs = Proofs(self.artefact_of, prove)

        def decide(state: RegistryState) -> Planned:
            targets, skipped = proofs.nearest(state, wanted, expected, proofs.check, hold=hold)
            for model_id, why in skipped.items():
                _log.warning("registry.rollback_passed_over", model_id=model_id, why=why)
            before_commit()
            return plan_rollback(state, targets, skipped, self.gate)

        def attempt() -> Committed:
            known = self.state
            if (answer := answered(known, request_id, Action.ROLLBACK, request)) is not None:
                return answer
            proofs.nearest(known, wanted, expected, proofs.make, hold=hold)
            with self.store.transaction(Origin(actor, via, reason, request_id)) as transaction:
                return decide_and_commit(transaction, Action.ROLLBACK, request, decide)

        return tried_again(attempt)

    def archive(
        self,
        model_ids: Sequence[str],
        *,
        reason: str = "",
        allow_unserved: bool = False,
        request_id: str = "",
        actor: str = "",
        via: str = "python",
        before_commit: Callable[[], None] = _nothing,
    ) -> Committed:
        """Retire models: all or none. A production model needs `allow_unserved` and a reason.

        Raises:
            UnknownModelError, WrongStatusError, InProductionError, InvalidArgumentError, StorageError: nothing
            changed.
        """

        def decide(state: RegistryState) -> Planned:
            before_commit()
            return plan_archive(state, model_ids, self.gate, reason=reason, allow_unserved=allow_unserved)

        with self.store.transaction(Origin(actor, via, reason, request_id)) as transaction:
            return decide_and_commit(transaction, Action.ARCHIVE, [list(model_ids), allow_unserved], decide)

    def record_evaluation(
        self,
        model_id: str,
        evidence: Mapping[str, Any],
        *,
        reason: str = "",
        request_id: str = "",
        actor: str = "",
        via: str = "python",
    ) -> Decision:
        """Keep an evaluation in the log, passed or not, and make its challenger a candidate where it passes.

        `evidence` is the record that the gate reads (`judging.Evidence.to_dict`); the registry itself asks of it
        `window_start` and `window_end`, the bars that were looked at. A repeat with the same `request_id` keeps
        nothing, and is judged by the evidence of the first.

        Raises:
            UnknownModelError, WrongStatusError, NotAdoptedError, ArtefactError, RequestIdReusedError, StorageError:
            nothing was kept.
        """
        with self.store.transaction(Origin(actor, via, reason, request_id)) as transaction:
            state = transaction.state
            entry = entry_of(state, model_id)
            if answered(state, request_id, Action.EVALUATE, model_id) is not None:
                return self.gate.judge(state, entry, force=False)
            draft, decision = plan_evaluate(state, model_id, json_safe(evidence), self.gate)
            self.artefact_of(state, model_id).verify()
            event = commit(transaction, Action.EVALUATE, model_id, draft)
        _log.info(
            "registry.evaluated",
            revision=event.revision,
            model_id=model_id,
            passed=decision.allowed,
            failed_verdicts=[verdict.name for verdict in decision.failed],
        )
        return decision

    def record_look(
        self,
        model_id: str,
        first: str,
        last: str,
        *,
        rules: Mapping[str, Any],
        reason: str = "",
        request_id: str = "",
        actor: str = "",
        via: str = "python",
    ) -> Looked:
        """Keep in the log that a backtest measured a model on the bars from `first` to `last` (open times, ISO text).

        Each look at bars raises what the gate asks of the key's models there. `rules` are those that it traded by,
        with the costs. Where its last evaluation was on these bars by these rules, that has counted the look already.
        A repeat with the same `request_id` counts nothing.

        Raises:
            UnknownModelError, InvalidArgumentError, RequestIdReusedError, StorageError: nothing was kept.
        """
        request = [model_id, first, last, rules]
        with self.store.transaction(Origin(actor, via, reason, request_id)) as transaction:
            state = transaction.state
            draft = plan_look(state, model_id, first, last, rules)
            known = answered(state, request_id, Action.LOOK, request)
            key = entry_of(state, model_id).key
            if known is not None:
                return Looked(known.revision, state.tries(key, first, last))
            if was_evaluated_on(state, model_id, first, last, rules):
                return Looked(None, state.tries(key, first, last))
            event = commit(transaction, Action.LOOK, request, draft)
            looks = transaction.state.tries(key, first, last)
        _log.info("registry.looked", revision=event.revision, model_id=model_id, first=first, last=last)
        return Looked(event.revision, looks)

    def make_candidate(
        self, model_id: str, *, reason: str = "", force: bool = False, actor: str = "", via: str = "python"
    ) -> Committed:
        """Propose a model for production on its stored evidence, or restore an archived one to that.

        Raises:
            UnknownModelError, WrongStatusError, QuarantinedError, GateRefusedError, NotAdoptedError, ArtefactError,
            StorageError: nothing changed.
        """

        def decide(state: RegistryState) -> Planned:
            planned = plan_candidate(state, model_id, self.gate, reason=reason, force=force)
            self.artefact_of(state, model_id).verify()
            return planned

        with self.store.transaction(Origin(actor, via, reason)) as transaction:
            return decide_and_commit(transaction, Action.CANDIDATE, model_id, decide)

    def move(
        self,
        model_id: str,
        stage: str,
        *,
        reason: str = "",
        force: bool = False,
        allow_unserved: bool = False,
        actor: str = "",
        via: str = "python",
    ) -> ModelRegistryEntry:
        """Move one model to a stage, `production`, `candidate` or `archived`, and give its entry.

        Raises:
            InvalidArgumentError: another stage; and the errors of `promote`, `make_candidate`, `archive`.
        """
        if stage == Status.PRODUCTION:
            self.promote([Promotion(model_id)], reason=reason, force=force, actor=actor, via=via)
        elif stage == Status.CANDIDATE:
            self.make_candidate(model_id, reason=reason, force=force, actor=actor, via=via)
        elif stage == Status.ARCHIVED:
            self.archive([model_id], reason=reason, allow_unserved=allow_unserved, actor=actor, via=via)
        else:
            raise InvalidArgumentError(
                f"stage is production, candidate or archived, not {stage!r}", reason="INVALID_STAGE"
            )
        return self.entry(model_id)
