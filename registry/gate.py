"""The promote gate: the one function that decides whether a challenger may replace a champion.

In force now:
1. A model that a rollback left behind (quarantined) needs `force`.
2. `force` needs a reason.

No rule reads `evidence` yet: it is recorded in the event as it was given, and the decision says that no
evidence rule was in force, so that nobody mistakes the record for a verdict.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Decision:
    """What the gate says: the rules that failed, and what goes into the event."""

    failed_rules: tuple[str, ...]
    record: Mapping[str, Any]

    @property
    def allowed(self) -> bool:
        """Whether the promote may go on."""
        return not self.failed_rules


def decide(
    *,
    challenger: str,
    champion: str | None,
    quarantined: bool,
    evidence: Mapping[str, Any] | None,
    force: bool,
) -> Decision:
    """Decide one promotion. Integrity, status and compare-and-set are decided elsewhere, past any force."""
    failed = ("quarantined",) if quarantined and not force else ()
    overridden = ["quarantined"] if quarantined and force else []
    return Decision(
        failed,
        {
            "challenger": challenger,
            "champion": champion,
            "evidence": evidence,
            "evidence_rules": "none in force",
            "failed_rules": list(failed),
            "overridden_rules": overridden,
        },
    )
