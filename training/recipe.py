"""A model's evidence as that of its refits: they are of its recipe, and no bar is left to measure them on.

1. What is carried over is no look of its own: the bars were looked at once.
2. A refit that was evaluated itself, on bars after its own training, keeps that: it is on its very files.
3. Nothing is carried to one that is in production or archived, as an evaluation would not put either anywhere unasked.
"""

from __future__ import annotations

from dataclasses import dataclass

from signalserve.judging import Evidence
from signalserve.registry import Decision, Registry, Status
from signalserve.registry.state import RegistryState


@dataclass(frozen=True)
class Carried:
    """What the gate says of a refit by the evidence that it carries, and its status after."""

    model_id: str
    decision: Decision
    status: str

    @property
    def failed_verdicts(self) -> tuple[str, ...]:
        """The verdicts against it, each with its numbers."""
        return tuple(f"{verdict.name}: {verdict.text}" for verdict in self.decision.failed)


def carry_evidence(
    registry: Registry, model_id: str, *, request_id: str = "", actor: str = "", via: str = "python"
) -> tuple[Carried, ...]:
    """Record the last evaluation of a model for its refits, and make those that pass candidates.

    `request_id` is the evaluation's own: what it has recorded already is not recorded again.

    Raises:
        RegistryError: it could not be kept.
    """
    state = registry.state
    record = state.evidence.get(model_id)
    if record is None:
        return ()
    evidence = Evidence.from_dict(record)
    carried: list[Carried] = []
    for refitted in _refits(state, model_id):
        decision = registry.record_evaluation(
            refitted,
            evidence.carried_to(refitted, state.digests[refitted]).to_dict(),
            request_id=f"{request_id}:{refitted}" if request_id else "",
            actor=actor,
            via=via,
        )
        carried.append(Carried(refitted, decision, registry.entry(refitted).status))
    return tuple(carried)


def _refits(state: RegistryState, model_id: str) -> list[str]:
    found = [refitted for refitted, measured in state.refits.items() if measured == model_id]
    return [
        refitted
        for refitted in found
        if refitted in state.entries
        and state.entries[refitted].status in (Status.SUCCESS, Status.CANDIDATE)
        and state.digests.get(refitted)
        and state.evidence.get(refitted, {"kind": "recipe"}).get("kind") == "recipe"
    ]
