"""The promote gate: decides on evidence whether a challenger may replace a champion.

| verdict              | asks                                                                            |
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
| deflated_sharpe      | P(true Sharpe ratio above luck), `judging.sharpe`: at least                     |
|                      | `min_deflated_sharpe`; without a champion luck is the rival, so also at least   |
|                      | `min_probability`                                                               |
| better               | with a champion: P(challenger better) is at least `min_probability`             |
| drawdown_ratio       | with a champion: at most `max_drawdown_ratio` of its drawdown; of one that had  |
|                      | none, any is many times as much, so `drawdown` alone decides                    |
| sharpe               | without a champion: at least `min_sharpe`                                       |

1. Every verdict goes into the event with its number and its bound, also those that passed.
2. `force` overrides failed verdicts and needs a reason; integrity, status and compare-and-set are decided
   elsewhere, past any force.
3. Luck grows with every look at these bars that the log knows of, those since the evaluation included: each
   evaluation of the key, and each model that was registered with a test span on them.
4. `promotion.gate: none` leaves `quarantined` alone in force, and the event says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from signalserve.common.moments import utc_now
from signalserve.judging.evidence import Evidence
from signalserve.judging.policy import Policy, span_text
from signalserve.judging.sharpe import luck
from signalserve.registry.entry import ModelRegistryEntry
from signalserve.registry.gate import Decision, Verdict, champion_of, decision_record, quarantine_verdict
from signalserve.registry.state import RegistryState
from signalserve.trading.rules import THRESHOLDS, TradingRules, unused_thresholds

_CLOCKS_DIFFER = timedelta(minutes=5)


class PromoteGate:
    """A `registry.Gate` that reads the evidence of a model's last evaluation.

    Args:
        policy: the bounds.
        rules: what a simulation trades by now, costs included; None does not ask.
        clock: gives the time of a decision.
    """

    def __init__(
        self,
        policy: Policy,
        rules: Mapping[str, Any] | None,
        *,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self.policy = policy
        self.rules = rules
        self._clock = clock

    @classmethod
    def of(cls, settings: Any) -> PromoteGate:
        """The gate of a configuration: its `promotion` and `trading` sections."""
        return cls(Policy.of(settings.promotion), TradingRules.of(settings.trading).used_for(THRESHOLDS))

    @property
    def holds_hand_edits(self) -> bool:
        """Whether what was decided is the champion, and not what an edit of the index put into production."""
        return self.policy.hand_edits == "hold"

    def judge(self, state: RegistryState, entry: ModelRegistryEntry, *, force: bool) -> Decision:
        """Hold a model's stored evidence against the policy."""
        record = state.evidence.get(entry.model_id)
        champion = champion_of(state, entry, hold=self.holds_hand_edits)
        tries = (
            state.tries(entry.key, record["window_start"], record["window_end"]) if record is not None else 0
        )
        verdicts = [quarantine_verdict(state, entry)]
        in_force = self.policy.gate == "evidence"
        if in_force:
            verdicts += _evidence_verdicts(
                entry.model_id, champion, state.digests, record, tries, self.policy, self.rules, self._clock()
            )
        return Decision(
            tuple(verdicts),
            force,
            {
                **decision_record(state, entry, champion, tuple(verdicts), force=force),
                "tries": tries if record is not None else None,
                "evidence_verdicts": "in force" if in_force else "none in force",
                "policy": self.policy.to_dict(),
                "trading_rules": dict(self.rules) if self.rules is not None else None,
            },
        )


def _evidence_verdicts(
    challenger: str,
    champion: str | None,
    digests: Mapping[str, str],
    record: Mapping[str, Any] | None,
    tries: int,
    policy: Policy,
    rules: Mapping[str, Any] | None,
    now: datetime,
) -> Iterable[Verdict]:
    hint = f"run `signalserve evaluate {challenger}`"
    if record is None:
        return [
            Verdict("evidence", False, None, "an evaluation", f"it has no evaluation that counts now; {hint}")
        ]
    try:
        evidence = Evidence.from_dict(record)
    except (KeyError, TypeError, ValueError) as error:
        return [
            Verdict("evidence", False, str(error), "a readable record", f"its evidence is broken; {hint}")
        ]
    return [
        Verdict("evidence", True, evidence.evaluated_at, "an evaluation"),
        *_times(evidence, policy, now, hint),
        *_subjects(evidence, champion, digests, hint),
        _settings(evidence, policy, rules, hint),
        _out_of_sample(evidence),
        *_numbers(evidence, tries, policy),
    ]


def _times(evidence: Evidence, policy: Policy, now: datetime, hint: str) -> Iterator[Verdict]:
    age = now - evidence.evaluated
    yield Verdict(
        "fresh",
        -_CLOCKS_DIFFER <= age <= policy.max_evidence_age,
        span_text(age),
        span_text(policy.max_evidence_age),
        f"its evidence is {span_text(age)} old; {hint}",
    )
    last = evidence.window[1]
    data_age, oldest = now - last, policy.max_data_age
    yield Verdict(
        "recent_bars",
        data_age >= -_CLOCKS_DIFFER and (oldest is None or data_age <= oldest),
        span_text(data_age),
        None if oldest is None else span_text(oldest),
        f"its evidence ends with the bar of {evidence.window_end}, {span_text(data_age)} old; bring the bars up to "
        f"date and {hint}",
    )


def _subjects(
    evidence: Evidence, champion: str | None, digests: Mapping[str, str], hint: str
) -> Iterator[Verdict]:
    yield Verdict(
        "artefact",
        evidence.kind == "artefact",
        evidence.kind,
        "artefact",
        f"its evidence is on a {evidence.kind}, not on these files; {hint}",
    )
    changed = [model.model_id for model in evidence.models if digests.get(model.model_id, "") != model.digest]
    yield Verdict(
        "same_artefacts",
        not changed,
        changed,
        [],
        f"{', '.join(changed)} changed since the evaluation; {hint}",
    )
    compared = evidence.champion.model_id if evidence.champion else None
    yield Verdict(
        "same_champion",
        compared == champion,
        compared,
        champion,
        f"it was compared with {compared or 'nothing'}, and {champion or 'nothing'} is in production; {hint}",
    )


def _settings(evidence: Evidence, policy: Policy, rules: Mapping[str, Any] | None, hint: str) -> Verdict:
    measured, wanted = dict(evidence.rules), dict(rules if rules is not None else evidence.rules)
    if evidence.champion is not None:
        for name in ("resamples", "seed", "block_bars"):
            if (bound := getattr(policy, name)) is not None:
                measured[name], wanted[name] = getattr(evidence, name), bound
    for name in unused_thresholds(measured):
        wanted.pop(name, None)
    differ = [name for name in {**wanted, **measured} if measured.get(name) != wanted.get(name)]
    texts = ", ".join(f"{name} {measured.get(name)}, now {wanted.get(name)}" for name in differ)
    return Verdict(
        "same_settings",
        not differ,
        {name: measured.get(name) for name in differ},
        {name: wanted.get(name) for name in differ},
        f"it was evaluated by other settings ({texts}); {hint}",
    )


def _out_of_sample(evidence: Evidence) -> Verdict:
    last = max(evidence.clear_of(model) for model in evidence.models)
    return Verdict(
        "out_of_sample",
        evidence.window[0] > last,
        evidence.window_start,
        last.isoformat(),
        f"the window starts {evidence.window_start}, not after the training spans and their labels' horizons, "
        f"which end {last.isoformat()}",
    )


def _numbers(evidence: Evidence, tries: int, policy: Policy) -> Iterator[Verdict]:
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
        yield Verdict("drawdown_ratio", True, "the champion had no drawdown", policy.max_drawdown_ratio)
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


def _at_least(name: str, found: float | None, bound: float, text: str) -> Verdict:
    shown = f"no {name}" if found is None else text.format(found)
    return Verdict(
        name, found is not None and found >= bound, found, bound, f"{shown}, and {bound:g} is asked for"
    )


def _at_most(name: str, found: float, bound: float, text: str) -> Verdict:
    return Verdict(
        name, found <= bound, found, bound, f"{text.format(found)}, and at most {bound:g} is allowed"
    )
