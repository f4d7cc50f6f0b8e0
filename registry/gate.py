"""The promote gate: the one function that decides whether a challenger may replace a champion.

| rule                 | asks                                                                            |
|----------------------|---------------------------------------------------------------------------------|
| quarantined          | no rollback left the challenger behind                                          |
| evidence             | the challenger was evaluated, and the record can be read                        |
| fresh                | not longer ago than `max_evidence_age`, and not in the future                   |
| recent_bars          | the last bar is not of the future, nor older than `max_data_age`                |
| artefact             | the very models were measured, not a recipe that was refitted                   |
| same_artefacts       | both models' files are those that were evaluated                                |
| same_champion        | the champion is the one that it was compared with                               |
| same_settings        | simulated by the rules and costs, resampled as the configuration now has them   |
| out_of_sample        | the window starts after both models' training spans and their labels' horizons  |
| bars, trades         | at least `min_bars`, `min_trades` of the challenger                             |
| drawdown             | the challenger's is at most `max_drawdown`                                      |
| deflated_sharpe      | P(true Sharpe ratio above luck), `registry.sharpe`: at least                    |
|                      | `min_deflated_sharpe`; without a champion luck is the rival, so also at least   |
|                      | `min_probability`                                                               |
| better               | with a champion: P(challenger better) is at least `min_probability`             |
| drawdown_ratio       | with a champion: at most `max_drawdown_ratio` of its drawdown; of one that had  |
|                      | none, any is many times as much, so `drawdown` alone decides                    |
| sharpe               | without a champion: at least `min_sharpe`                                       |

1. Every rule is judged and goes into the event with its number and its bound, also those that passed.
2. `force` overrides failed rules and needs a reason; integrity, status and compare-and-set are decided
   elsewhere, past any force.
3. Luck grows with every look at these bars that the log knows of, those since the evaluation included: each
   evaluation of the key, and each model that was registered with a test span on them.
4. `promotion.gate: none` leaves `quarantined` alone in force, and the event says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from signalserve.config.evidence import PromotionSettings
from signalserve.registry.evidence import Evidence
from signalserve.registry.sharpe import luck

_CLOCKS_DIFFER = timedelta(minutes=5)


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
    tries: int,
    policy: PromotionSettings,
    rules: Mapping[str, Any] | None,
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
        tries: looks at the bars of that evaluation, itself included (`RegistryState.tries`).
        policy: the bounds.
        rules: what a simulation trades by now, costs included; None does not ask.
        now: the time of the decision.
        force: override what fails.
    """
    judged = [Rule("quarantined", not quarantined, quarantined, False, _QUARANTINED)]
    if policy.gate == "evidence":
        judged += _evidence_rules(challenger, champion, digests, evidence, tries, policy, rules, now)
    failed = [rule.name for rule in judged if not rule.passed]
    return Decision(
        tuple(judged),
        force,
        {
            "challenger": challenger,
            "champion": champion,
            "evidence": evidence,
            "tries": tries if evidence is not None else None,
            "evidence_rules": "in force" if policy.gate == "evidence" else "none in force",
            "policy": policy.model_dump(mode="json"),
            "trading_rules": dict(rules) if rules is not None else None,
            "rules": [rule.to_dict() for rule in judged],
            "failed_rules": failed,
            "overridden_rules": failed if force else [],
        },
    )


def _evidence_rules(
    challenger: str,
    champion: str | None,
    digests: Mapping[str, str],
    record: Mapping[str, Any] | None,
    tries: int,
    policy: PromotionSettings,
    rules: Mapping[str, Any] | None,
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
        *_times(evidence, policy, now, hint),
        *_subjects(evidence, champion, digests, hint),
        _settings(evidence, policy, rules, hint),
        _out_of_sample(evidence),
        *_numbers(evidence, tries, policy),
    ]


def _times(evidence: Evidence, policy: PromotionSettings, now: datetime, hint: str) -> Iterator[Rule]:
    age = now - evidence.evaluated
    yield Rule(
        "fresh",
        -_CLOCKS_DIFFER <= age <= policy.max_evidence_age,
        _span(age),
        _span(policy.max_evidence_age),
        f"its evidence is {_span(age)} old; {hint}",
    )
    last = evidence.window[1]
    data_age, oldest = now - last, policy.max_data_age
    yield Rule(
        "recent_bars",
        data_age >= -_CLOCKS_DIFFER and (oldest is None or data_age <= oldest),
        _span(data_age),
        None if oldest is None else _span(oldest),
        f"its evidence ends with the bar of {evidence.window_end}, {_span(data_age)} old; bring the bars up to "
        f"date and {hint}",
    )


def _subjects(
    evidence: Evidence, champion: str | None, digests: Mapping[str, str], hint: str
) -> Iterator[Rule]:
    yield Rule(
        "artefact",
        evidence.kind == "artefact",
        evidence.kind,
        "artefact",
        f"its evidence is on a {evidence.kind}, not on these files; {hint}",
    )
    changed = [model.model_id for model in evidence.models if digests.get(model.model_id, "") != model.digest]
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


def _settings(
    evidence: Evidence, policy: PromotionSettings, rules: Mapping[str, Any] | None, hint: str
) -> Rule:
    measured, wanted = dict(evidence.rules), dict(rules if rules is not None else evidence.rules)
    if evidence.champion is not None:
        for name in ("resamples", "seed", "block_bars"):
            if (bound := getattr(policy, name)) is not None:
                measured[name], wanted[name] = getattr(evidence, name), bound
    differ = [name for name in {**wanted, **measured} if measured.get(name) != wanted.get(name)]
    texts = ", ".join(f"{name} {measured.get(name)}, now {wanted.get(name)}" for name in differ)
    return Rule(
        "same_settings",
        not differ,
        {name: measured.get(name) for name in differ},
        {name: wanted.get(name) for name in differ},
        f"it was evaluated by other settings ({texts}); {hint}",
    )


def _out_of_sample(evidence: Evidence) -> Rule:
    last = max(evidence.clear_of(model) for model in evidence.models)
    return Rule(
        "out_of_sample",
        evidence.window[0] > last,
        evidence.window_start,
        last.isoformat(),
        f"the window starts {evidence.window_start}, not after the training spans and their labels' horizons, "
        f"which end {last.isoformat()}",
    )


def _numbers(evidence: Evidence, tries: int, policy: PromotionSettings) -> Iterator[Rule]:
    challenger, champion = evidence.challenger, evidence.champion
    yield _at_least("bars", evidence.bars, policy.min_bars, "{} out-of-sample bars")
    yield _at_least("trades", challenger.trades, policy.min_trades, "{} trades")
    yield _at_most("drawdown", challenger.max_drawdown, policy.max_drawdown, "a drawdown of {:.2%}")
    rival = policy.min_probability if champion is None else 0.0
    yield _at_least(
        "deflated_sharpe",
        deflated_sharpe(evidence, tries),
        max(policy.min_deflated_sharpe, rival),
        f"a deflated Sharpe ratio of {{:.3f}} after {tries} look(s) at these bars",
    )
    if champion is None:
        yield _at_least("sharpe", challenger.sharpe, policy.min_sharpe, "a Sharpe ratio of {:.2f}")
        return
    yield _at_least(
        "better", evidence.probability_better, policy.min_probability, "P(better than the champion) of {:.3f}"
    )
    if policy.max_drawdown_ratio is None:
        return
    if champion.max_drawdown == 0.0:
        yield Rule("drawdown_ratio", True, "the champion had no drawdown", policy.max_drawdown_ratio)
        return
    yield _at_most(
        "drawdown_ratio",
        challenger.max_drawdown / champion.max_drawdown,
        policy.max_drawdown_ratio,
        "a drawdown of {:.2f} times the champion's",
    )


def deflated_sharpe(evidence: Evidence, tries: int) -> float | None:
    """P(the challenger's true Sharpe ratio is above luck's), after so many looks at the bars of the evidence."""
    moments = evidence.challenger.moments
    if moments is None or evidence.bars < 2:
        return None
    benchmark = luck(evidence.bars, tries=tries, trials=evidence.trials, variance=evidence.trial_variance)
    return moments.probabilistic_sharpe(benchmark)


def _span(span: timedelta) -> str:
    hours = span.total_seconds() / 3600
    return f"{hours / 24:.1f} days" if abs(hours) >= 24 else f"{hours:.1f} hours"


def _at_least(name: str, found: float | None, bound: float, text: str) -> Rule:
    shown = f"no {name}" if found is None else text.format(found)
    return Rule(
        name, found is not None and found >= bound, found, bound, f"{shown}, and {bound:g} is asked for"
    )


def _at_most(name: str, found: float, bound: float, text: str) -> Rule:
    return Rule(name, found <= bound, found, bound, f"{text.format(found)}, and at most {bound:g} is allowed")


_QUARANTINED = "it was rolled back from and is quarantined; to promote it again say force and a reason"
