"""The promote gate: the one function that decides whether a challenger may replace a champion.

| rule                 | asks                                                                            |
|----------------------|---------------------------------------------------------------------------------|
| quarantined          | no rollback left the challenger behind                                          |
| evidence             | the challenger was evaluated, and the record can be read                        |
| fresh                | not longer ago than `max_evidence_age`                                          |
| same_artefacts       | both models' files are those that were evaluated                                |
| same_champion        | the champion is the one that it was compared with                               |
| out_of_sample        | the window starts after both models' training spans                             |
| bars, trades         | at least `min_bars`, `min_trades` of the challenger                             |
| drawdown             | the challenger's is at most `max_drawdown`                                      |
| deflated_sharpe      | at least `min_deflated_sharpe`                                                  |
| better               | with a champion: P(challenger better) is at least `min_probability`             |
| drawdown_ratio       | with a champion: at most `max_drawdown_ratio` of its drawdown                   |
| sharpe               | without a champion: at least `min_sharpe`                                       |

1. Every rule is judged and goes into the event with its number and its bound, also those that passed.
2. `force` overrides failed rules and needs a reason; integrity, status and compare-and-set are decided
   elsewhere, past any force.
3. `promotion.gate: none` leaves `quarantined` alone in force, and the event says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from config.evidence import PromotionSettings
from registry.evidence import Evidence


@dataclass(frozen=True)
class Rule:
    """One rule's verdict: the number that was found and the bound that it was held against."""

    name: str
    passed: bool
    found: Any = None
    bound: Any = None
    text: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For the event."""
        return {"rule": self.name, "passed": self.passed, "found": self.found, "bound": self.bound}


@dataclass(frozen=True)
class Decision:
    """What the gate says: every rule's verdict, and what goes into the event."""

    rules: tuple[Rule, ...]
    forced: bool
    record: Mapping[str, Any]

    @property
    def failed(self) -> tuple[Rule, ...]:
        """The rules that are not met, whether or not force overrides them."""
        return tuple(rule for rule in self.rules if not rule.passed)

    @property
    def allowed(self) -> bool:
        """Whether the step may be taken."""
        return self.forced or not self.failed


def decide(
    *,
    challenger: str,
    champion: str | None,
    digests: Mapping[str, str],
    quarantined: bool,
    evidence: Mapping[str, Any] | None,
    policy: PromotionSettings,
    now: datetime,
    force: bool,
) -> Decision:
    """Decide one promotion.

    Args:
        challenger: the model that shall be in production.
        champion: the model that is; None for none.
        digests: model_id -> the digest that counts.
        quarantined: whether a rollback left the challenger behind.
        evidence: the record of the challenger's last evaluation, as the log has it.
        policy: the bounds.
        now: the time of the decision.
        force: override what fails.
    """
    rules = [Rule("quarantined", not quarantined, quarantined, False, _QUARANTINED)]
    if policy.gate == "evidence":
        rules += _evidence_rules(challenger, champion, digests, evidence, policy, now)
    failed = [rule.name for rule in rules if not rule.passed]
    return Decision(
        tuple(rules),
        force,
        {
            "challenger": challenger,
            "champion": champion,
            "evidence": evidence,
            "evidence_rules": "in force" if policy.gate == "evidence" else "none in force",
            "policy": policy.model_dump(mode="json"),
            "rules": [rule.to_dict() for rule in rules],
            "failed_rules": failed,
            "overridden_rules": failed if force else [],
        },
    )


def _evidence_rules(
    challenger: str,
    champion: str | None,
    digests: Mapping[str, str],
    record: Mapping[str, Any] | None,
    policy: PromotionSettings,
    now: datetime,
) -> Iterable[Rule]:
    hint = f"run `signalserve evaluate {challenger}`"
    if record is None:
        return [Rule("evidence", False, None, "an evaluation", f"it was never evaluated; {hint}")]
    try:
        evidence = Evidence.from_dict(record)
    except (KeyError, TypeError, ValueError) as error:
        return [Rule("evidence", False, str(error), "a readable record", f"its evidence is broken; {hint}")]
    return [
        Rule("evidence", True, evidence.evaluated_at, "an evaluation"),
        *_validity(evidence, champion, digests, policy, now, hint),
        *_numbers(evidence, policy),
    ]


def _validity(
    evidence: Evidence,
    champion: str | None,
    digests: Mapping[str, str],
    policy: PromotionSettings,
    now: datetime,
    hint: str,
) -> Iterator[Rule]:
    age = now - evidence.evaluated
    yield Rule(
        "fresh",
        age <= policy.max_evidence_age,
        f"{age.total_seconds() / 86400:.2f} d",
        f"{policy.max_evidence_age.total_seconds() / 86400:g} d",
        f"its evidence is {age.total_seconds() / 86400:.1f} days old; {hint}",
    )
    models = [evidence.challenger, *([evidence.champion] if evidence.champion else [])]
    changed = [model.model_id for model in models if digests.get(model.model_id, "") != model.digest]
    yield Rule(
        "same_artefacts",
        not changed,
        changed,
        [],
        f"{', '.join(changed)} changed since the evaluation; {hint}",
    )
    compared = evidence.champion.model_id if evidence.champion else None
    yield Rule(
        "same_champion",
        compared == champion,
        compared,
        champion,
        f"it was compared with {compared or 'nothing'}, and {champion or 'nothing'} is in production; {hint}",
    )
    last = max(datetime.fromisoformat(model.train_end) for model in models)
    yield Rule(
        "out_of_sample",
        datetime.fromisoformat(evidence.window_start) > last,
        evidence.window_start,
        last.isoformat(),
        f"the window starts {evidence.window_start}, not after the training spans, which end {last.isoformat()}",
    )


def _numbers(evidence: Evidence, policy: PromotionSettings) -> Iterator[Rule]:
    challenger, champion = evidence.challenger, evidence.champion
    yield _at_least("bars", evidence.bars, policy.min_bars, "{} out-of-sample bars")
    yield _at_least("trades", challenger.trades, policy.min_trades, "{} trades")
    yield _at_most("drawdown", challenger.max_drawdown, policy.max_drawdown, "a drawdown of {:.2%}")
    yield _at_least(
        "deflated_sharpe",
        challenger.deflated_sharpe,
        policy.min_deflated_sharpe,
        "a deflated Sharpe ratio of {:.3f}",
    )
    if champion is None:
        yield _at_least("sharpe", challenger.sharpe, policy.min_sharpe, "a Sharpe ratio of {:.2f}")
        return
    yield _at_least(
        "better", evidence.probability_better, policy.min_probability, "P(better than the champion) of {:.3f}"
    )
    if policy.max_drawdown_ratio is not None and champion.max_drawdown > 0.0:
        ratio = challenger.max_drawdown / champion.max_drawdown
        yield _at_most(
            "drawdown_ratio", ratio, policy.max_drawdown_ratio, "a drawdown of {:.2f} times the champion's"
        )


def _at_least(name: str, found: float | None, bound: float, text: str) -> Rule:
    shown = f"no {name}" if found is None else text.format(found)
    return Rule(
        name, found is not None and found >= bound, found, bound, f"{shown}, and {bound:g} is asked for"
    )


def _at_most(name: str, found: float, bound: float, text: str) -> Rule:
    return Rule(name, found <= bound, found, bound, f"{text.format(found)}, and at most {bound:g} is allowed")


_QUARANTINED = "it was rolled back from and is quarantined; to promote it again say force and a reason"
