"""What a model's place rests on: which gate let it in, by which costs it was judged, who measured, who vouches.

One place reads it out of a decision's record, and one puts it into words, for every listing and page.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

_BY_GATE = {
    "evidence": "let in on evidence",
    "none": "let in by no gate",
    "forced": "let in by force",
    "other": "let in by a gate of its own",
    "by_hand": "put there by hand, without evidence",
}
_BY_VERDICTS = {"in force": "evidence", "none in force": "none"}


class Basis(NamedTuple):
    """What the decision read that put a model where it is.

    `gate`: `evidence`; `none` (`promotion.gate: none`); `forced` past verdicts against it; `other`, a gate that is not
    ours; `by_hand`, an edit of the index. `fee_bps` and `slippage_bps`, a side, are those of the evaluation, None
    without one. `measured_by`: `trainer`, `evaluate` or `brought`; empty without an evaluation. `training_span`: whose
    word it is that no bar was trained on, `registered` (the log's) or `declared` (the files' alone).
    """

    gate: str
    fee_bps: float | None = None
    slippage_bps: float | None = None
    measured_by: str = ""
    training_span: str = "declared"

    @classmethod
    def of(cls, record: Mapping[str, Any], *, forced: bool) -> Basis:
        """That of a decision that let a model in, by its record in the log; what older logs lack is not vouched for."""
        overridden = record.get("overridden_verdicts", record.get("overridden_rules", ()))
        gate = "forced" if forced and overridden else _BY_VERDICTS.get(_evidence_verdicts(record), "other")
        evidence = record.get("evidence")
        if not isinstance(evidence, Mapping):
            return cls(gate)
        rules = evidence.get("rules")
        costs = rules if isinstance(rules, Mapping) else {}
        return cls(
            gate,
            _number(costs.get("fee_bps")),
            _number(costs.get("slippage_bps")),
            str(evidence.get("measured_by", "brought")),
            "registered" if record.get("training_span") == "registered" else "declared",
        )

    @property
    def text(self) -> str:
        """In words: `let in on evidence, measured by trainer at 5 + 2 bps a side, training span declared`."""
        words = _BY_GATE.get(self.gate, self.gate)
        if not self.measured_by:
            return words if self.gate == "by_hand" else f"{words}, measured by nobody"
        costs = " + ".join("?" if cost is None else f"{cost:g}" for cost in (self.fee_bps, self.slippage_bps))
        who = {"evaluate": "`evaluate`", "brought": "bars that were brought"}.get(
            self.measured_by, self.measured_by
        )
        return f"{words}, measured by {who} at {costs} bps a side, training span {self.training_span}"


def bases_of(evidence: Mapping[str, Any] | None, *, forced: bool) -> dict[str, Basis]:
    """That of each model which an event's decisions are about, by what the event keeps of them."""
    record = evidence if isinstance(evidence, Mapping) else {}
    decisions = [record] if "challenger" in record else record.get("decisions", ())
    return {
        str(item["challenger"]): Basis.of(item, forced=forced)
        for item in (decisions if isinstance(decisions, list | tuple) else ())
        if isinstance(item, Mapping) and "challenger" in item
    }


def _evidence_verdicts(record: Mapping[str, Any]) -> str:
    return str(record.get("evidence_verdicts", record.get("evidence_rules", "")))


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
