"""Moves between the stages of a model: each takes the lock, asks the lifecycle, commits one event."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from signalserve.common.key import Key
from signalserve.common.log import LibraryLog
from signalserve.registry.answers import Committed, answered, commit, decide_and_commit
from signalserve.registry.artefact import Proof
from signalserve.registry.entry import ModelRegistryEntry, Status
from signalserve.registry.errors import ArtefactError, InvalidArgumentError, NotAdoptedError
from signalserve.registry.events import Action, json_safe
from signalserve.registry.gate import Decision
from signalserve.registry.parts import Parts
from signalserve.registry.plans import (
    Planned,
    Promotion,
    check_rollback_expected,
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
from signalserve.registry.store import Origin

OnProof = Callable[[str, Proof], None]

_log = LibraryLog("registry")


class Moves(Parts):
    """Promote, rollback, archive, evaluate, propose."""

    def promote(
        self,
        promotions: Sequence[Promotion],
        *,
        reason: str = "",
        force: bool = False,
        request_id: str = "",
        actor: str = "",
        via: str = "python",
        on_proof: OnProof | None = None,
    ) -> Committed:
        """Put models into production: all or none, in one revision.

        Every model's files are verified now, against the digest in the log, and the gate judges the evidence of
        its last evaluation. A repeat with the same `request_id` gets the first answer. `on_proof` is handed each
        model as it was opened for the proof.

        Raises:
            UnknownModelError, StaleExpectationError, WrongStatusError, QuarantinedError, GateRefusedError,
            NotAdoptedError, ArtefactError, InvalidArgumentError, StorageError: nothing changed.
        """
        request = [[item.model_id, item.expected_production_model_id] for item in promotions]
        known = self.state
        if (answer := answered(known, request_id, Action.PROMOTE, [request, force])) is not None:
            return answer
        # hashing takes time, so the bulk of it is done before the lock; under it the digest is compared again
        proven: dict[str, str] = {}
        for item in promotions:
            if item.model_id in known.entries and known.digests.get(item.model_id):
                proof = self.artefact_of(known, item.model_id).prove()
                if on_proof is not None:
                    on_proof(item.model_id, proof)
                proven[item.model_id] = proof.digest

        def decide(state: RegistryState) -> Planned:
            planned = plan_promote(state, promotions, self.gate, reason=reason, force=force)
            for item in promotions:
                if proven.get(item.model_id) != state.digests.get(item.model_id, ""):
                    self.artefact_of(state, item.model_id).verify()
            return planned

        with self.store.transaction(Origin(actor, via, reason, request_id)) as transaction:
            return decide_and_commit(transaction, Action.PROMOTE, [request, force], decide)

    def rollback(
        self,
        keys: Sequence[Key | tuple[str, str]],
        *,
        reason: str,
        expected: Sequence[str] = (),
        request_id: str = "",
        actor: str = "",
        via: str = "python",
        on_proof: OnProof | None = None,
    ) -> Committed:
        """Take keys back to the newest earlier production model that verifies; all or none.

        `expected`: what is in production of each key, in their order, if it shall be that and no other.

        The model left behind is quarantined. A nearer model that does not verify is passed over, and the event
        says so. `on_proof` is as for `promote`.

        Raises:
            UnknownKeyError, NothingToRollBackToError, StaleExpectationError, InvalidArgumentError, StorageError:
            nothing changed.
        """
        wanted = [Key(*key) for key in keys]
        if not reason.strip():
            raise InvalidArgumentError("a rollback needs a reason", reason="REASON_REQUIRED")

        def decide(state: RegistryState) -> Planned:
            check_rollback_expected(state, wanted, expected)
            skipped: dict[str, str] = {}
            targets: dict[Key, str] = {}
            for key, candidates in rollback_candidates(state, wanted).items():
                target = self._first_proven(state, candidates, skipped, on_proof)
                if target is None:
                    raise nothing_to_roll_back_to(key, skipped)
                targets[key] = target
            return plan_rollback(state, targets, skipped)

        with self.store.transaction(Origin(actor, via, reason, request_id)) as transaction:
            asked = [list(key) for key in wanted]
            return decide_and_commit(
                transaction, Action.ROLLBACK, [asked, list(expected)] if expected else asked, decide
            )

    def archive(
        self,
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

        def decide(state: RegistryState) -> Planned:
            return plan_archive(state, model_ids, reason=reason, allow_unserved=allow_unserved)

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

    def _first_proven(
        self,
        state: RegistryState,
        candidates: Sequence[str],
        skipped: dict[str, str],
        on_proof: OnProof | None,
    ) -> str | None:
        for model_id in candidates:
            try:
                proof = self.artefact_of(state, model_id).prove()
            except (ArtefactError, NotAdoptedError) as error:
                skipped[model_id] = str(error)
                _log.warning("registry.rollback_passed_over", model_id=model_id, why=str(error))
            else:
                if on_proof is not None:
                    on_proof(model_id, proof)
                return model_id
        return None
