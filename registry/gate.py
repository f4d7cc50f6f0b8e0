"""What the registry asks of a gate: a decision on one promotion, with every verdict's numbers.

The registry knows no statistics. Whoever builds a `Registry` hands it a gate; `signalserve.judging` has the one
that reads evidence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from signalserve.registry.entry import ModelRegistryEntry
from signalserve.registry.state import RegistryState


@dataclass(frozen=True)
class Verdict:
    """One verdict of a gate: the number that was found and the bound that it was held against."""

    name: str
    passed: bool
    found: Any = None
    bound: Any = None
    text: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For the event."""
        return {"verdict": self.name, "passed": self.passed, "found": self.found, "bound": self.bound}


@dataclass(frozen=True)
class Decision:
    """What a gate says: every verdict, and what goes into the event."""

    verdicts: tuple[Verdict, ...]
    forced: bool
    record: Mapping[str, Any]

    @property
    def failed(self) -> tuple[Verdict, ...]:
        """The verdicts against the model, whether or not force overrides them."""
        return tuple(verdict for verdict in self.verdicts if not verdict.passed)

    @property
    def allowed(self) -> bool:
        """Whether the step may be taken."""
        return self.forced or not self.failed


class Gate(Protocol):
    """Decides whether a model may become a candidate or go into production."""

    @property
    def holds_hand_edits(self) -> bool:
        """Whether what an edit of the index put into production counts for nothing until it is confirmed."""

    def judge(self, state: RegistryState, entry: ModelRegistryEntry, *, force: bool) -> Decision:
        """Hold a model's stored evidence against the bounds; `force` overrides what fails."""


class NoGate:
    """The gate of a registry that was handed none: nothing passes but by force.

    What a promote must show is a choice, and nobody has made it. The same call must not meet another gate in
    another working directory, so no configuration is looked for, and edits by hand count.
    """

    holds_hand_edits = False

    def judge(self, state: RegistryState, entry: ModelRegistryEntry, *, force: bool) -> Decision:
        """Refuse, and say how a gate is handed in."""
        verdicts = (quarantine_verdict(state, entry), Verdict("gate", False, None, "a gate", _NO_GATE))
        champion = champion_of(state, entry, hold=self.holds_hand_edits)
        return Decision(verdicts, force, decision_record(state, entry, champion, verdicts, force=force))


def quarantine_verdict(state: RegistryState, entry: ModelRegistryEntry) -> Verdict:
    """Whether no rollback left the model behind: the verdict that every gate gives first."""
    quarantined = entry.model_id in state.quarantined
    return Verdict("quarantined", not quarantined, quarantined, False, _QUARANTINED)


def champion_of(state: RegistryState, entry: ModelRegistryEntry, *, hold: bool) -> str | None:
    """The model that a challenger is held against; None for none.

    One that is in production by hand is held against what had been decided.
    """
    standing = state.standing(entry.key, hold=hold)
    if standing == entry.model_id:
        standing = state.decision(entry.key)
    return None if standing == entry.model_id else standing


def decision_record(
    state: RegistryState,
    entry: ModelRegistryEntry,
    champion: str | None,
    verdicts: tuple[Verdict, ...],
    *,
    force: bool,
) -> dict[str, Any]:
    """What every decision leaves in the event, whichever gate made it."""
    failed = [verdict.name for verdict in verdicts if not verdict.passed]
    return {
        "challenger": entry.model_id,
        "champion": champion,
        "evidence": state.evidence.get(entry.model_id),
        "verdicts": [verdict.to_dict() for verdict in verdicts],
        "failed_verdicts": failed,
        "overridden_verdicts": failed if force else [],
    }


_QUARANTINED = "it was rolled back from and is quarantined; to promote it again say force and a reason"
_NO_GATE = (
    "this registry was opened without a gate, so nothing judges the evidence; hand one in "
    "(gate=PromoteGate.of(load_settings()), from signalserve.judging and signalserve.config), or say force and a reason"
)
