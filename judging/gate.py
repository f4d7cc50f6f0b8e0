"""The promote gate: decides on evidence whether a challenger may replace a champion.

| verdict              | asks                                                                            |
|----------------------|---------------------------------------------------------------------------------|
| quarantined          | no rollback left the challenger behind                                          |
| evidence             | the challenger was evaluated, and the record can be read                        |
| fresh                | not longer ago than `max_evidence_age`, and not in the future                   |
| recent_bars          | the last bar is not of the future, nor older than `max_data_age`                |
| measured_by          | who measured is one of `accept`                                                 |
| artefact             | the very models were measured, or a recipe where `accept_kinds` says so         |
| same_artefacts       | both models' files are those that were evaluated; of a recipe the refit's, too, |
|                      | and the log has the evaluation that it carries                                  |
| same_champion        | the champion is the one that it was compared with                               |
| same_settings        | simulated by the rules and costs, resampled as the configuration now has them   |
| out_of_sample        | the window starts after both models' training spans and their labels' horizons  |
| training_span        | by `registered`: and after both were registered, whatever their files say       |
| same_bars            | the bars before it are those that the challenger was trained on                 |
| bars, trades         | at least `min_bars`, `min_trades` of the challenger                             |
| drawdown             | the challenger's is at most `max_drawdown`                                      |
| timing               | P(positions beat their shifted copies by skill), `judging.timing`: at least     |
|                      | `min_probability`, and more after several looks                                 |
| folds_timing         | the same of the joined walk-forward predictions: at least `min_walk_forward`    |
| folds_sharpe         | P(their true Sharpe ratio above what luck gave the grid): as much               |
| deflated_sharpe      | P(true Sharpe ratio above luck), `judging.sharpe`: at least                     |
|                      | `min_deflated_sharpe`                                                           |
| better               | with a champion: P(challenger better) is at least `min_probability`, and more   |
|                      | after several looks                                                             |
| drawdown_ratio       | with a champion: at most `max_drawdown_ratio` of its drawdown, or of            |
|                      | `drawdown_floor` where that is more                                             |
| sharpe               | without a champion: at least `min_sharpe`                                       |

1. Every verdict goes into the event with its number and its bound, also those that passed.
2. `force` overrides failed verdicts and needs a reason; integrity, status and compare-and-set are decided
   elsewhere, past any force.
3. Luck grows with every look at these bars that the log knows of, those since the evaluation included: each
   evaluation and backtest of the key, and each model that was registered with a test span on them. After k looks a
   probability of 1 - (1 - p) / k is asked for where one look is asked for p (Bonferroni); the deflated Sharpe ratio has
   the best of k without skill as its rival. What a grid tried was chosen by the folds, and deflates these.
4. `promotion.gate: none` leaves `quarantined` alone in force, and the event says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from signalserve.common.moments import parse_moment, utc_now
from signalserve.judging.evidence import Evidence
from signalserve.judging.policy import Policy, span_text
from signalserve.judging.sharpe import expected_max_sharpe, luck
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
                entry.model_id, champion, state, record, tries, self.policy, self.rules, self._clock()
            )
        return Decision(
            tuple(verdicts),
            force,
            {
                **decision_record(state, entry, champion, tuple(verdicts), force=force),
                "tries": tries if record is not None else None,
                "training_span": _vouched(record, state),
                "evidence_verdicts": "in force" if in_force else "none in force",
                "policy": self.policy.to_dict(),
                "trading_rules": dict(self.rules) if self.rules is not None else None,
            },
        )


def _evidence_verdicts(
    challenger: str,
    champion: str | None,
    state: RegistryState,
    record: Mapping[str, Any] | None,
    tries: int,
    policy: Policy,
    rules: Mapping[str, Any] | None,
    now: datetime,
) -> Iterable[Verdict]:
    hint = f"run `signalserve evaluate {state.refits.get(challenger, challenger)}`"
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
    hint = f"run `signalserve evaluate {evidence.measured_ids[0]}`"
    return [
        Verdict("evidence", True, evidence.evaluated_at, "an evaluation"),
        *_times(evidence, policy, now, hint),
        *_subjects(evidence, champion, state, policy, hint),
        _settings(evidence, policy, rules, hint),
        *_spans(evidence, state, policy, hint),
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
    evidence: Evidence, champion: str | None, state: RegistryState, policy: Policy, hint: str
) -> Iterator[Verdict]:
    yield Verdict(
        "measured_by",
        evidence.measured_by in policy.accept,
        evidence.measured_by,
        list(policy.accept),
        f"its evidence is of {evidence.measured_by}, and promotion.accept has {', '.join(policy.accept) or 'nobody'}; "
        f"{hint} on the configured bars",
    )
    yield Verdict(
        "artefact",
        evidence.kind in policy.accept_kinds,
        evidence.kind,
        list(policy.accept_kinds),
        f"its evidence is on a {evidence.kind}, not on these files: promote {evidence.measured_ids[0]}, which was "
        "measured, or accept recipes (promotion.accept_kinds)",
    )
    changed = _changed(evidence, state)
    yield Verdict("same_artefacts", not changed, list(changed), [], f"{'; '.join(changed.values())}; {hint}")
    compared = evidence.champion.model_id if evidence.champion else None
    yield Verdict(
        "same_champion",
        compared == champion,
        compared,
        champion,
        f"it was compared with {compared or 'nothing'}, and {champion or 'nothing'} is in production; {hint}",
    )


def _changed(evidence: Evidence, state: RegistryState) -> dict[str, str]:
    """Which of the models are no longer what the evidence is about, each with what is wrong."""
    challenger, recipe = evidence.challenger, evidence.recipe_of
    named = {model.model_id: model.digest for model in evidence.models}
    if recipe is not None:
        named[recipe.model_id] = recipe.digest
    changed = {
        model_id: f"{model_id} changed since the evaluation"
        for model_id, digest in named.items()
        if state.digests.get(model_id, "") != digest
    }
    if evidence.kind != "recipe" and recipe is None:
        return changed
    if recipe is None or state.refits.get(challenger.model_id) != recipe.model_id:
        of = "nothing" if recipe is None else recipe.model_id
        changed[challenger.model_id] = f"{challenger.model_id} was not registered as a refit of {of}"
        return changed
    entry = state.entries[challenger.model_id]
    if not state.was_measured(recipe.model_id, entry.key, evidence.window_start, evidence.window_end):
        changed[recipe.model_id] = f"the log has no evaluation of {recipe.model_id} on these bars"
    return changed


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


def _spans(evidence: Evidence, state: RegistryState, policy: Policy, hint: str) -> Iterator[Verdict]:
    last = max(evidence.clear_of(model) for model in evidence.models)
    yield Verdict(
        "out_of_sample",
        evidence.window[0] > last,
        evidence.window_start,
        last.isoformat(),
        f"the window starts {evidence.window_start}, not after the training spans and their labels' horizons, "
        f"which end {last.isoformat()}",
    )
    vouched = vouched_by(evidence, state)
    yield Verdict(
        "training_span",
        policy.training_span in ("declared", vouched),
        vouched,
        policy.training_span,
        f"the window starts {evidence.window_start}, before the models were registered, so that their own files alone "
        f"say what they were trained on; wait for bars and {hint}",
    )
    found = evidence.trained_on
    if found is None:
        yield _not_kept("same_bars", 0, policy, "which bars it saw")
    else:
        yield Verdict(
            "same_bars",
            found.overlap > 0 and not found.differ,
            found.differ if found.overlap else None,
            0,
            f"{found.differ} of {found.overlap} weeks of the training span have other bars than it was trained on, the "
            f"first that of {found.first}: another symbol, source or a changed file"
            if found.overlap
            else "the bar file has no whole week of the training span, so nobody knows whether it is the same market: "
            "bring a longer file",
        )


def _vouched(record: Mapping[str, Any] | None, state: RegistryState) -> str | None:
    try:
        return None if record is None else vouched_by(Evidence.from_dict(record), state)
    except (KeyError, TypeError, ValueError):  # a verdict says what is wrong with it
        return None


def vouched_by(evidence: Evidence, state: RegistryState) -> str:
    """Who says that no bar of the window was trained on: the log (`registered`), or the models' files (`declared`)."""
    times = [state.registered.get(model_id) for model_id in evidence.measured_ids]
    began = evidence.window[0]
    return "registered" if all(time and parse_moment(time) <= began for time in times) else "declared"


def _numbers(evidence: Evidence, tries: int, policy: Policy) -> Iterator[Verdict]:
    challenger, champion = evidence.challenger, evidence.champion
    yield _at_least("bars", evidence.bars, policy.min_bars, "{} out-of-sample bars")
    yield _at_least("trades", challenger.trades, policy.min_trades, "{} trades")
    yield _at_most("drawdown", challenger.max_drawdown, policy.max_drawdown, "a drawdown of {:.2%}")
    asked = asked_after(policy.min_probability, tries)
    looks = f" after {tries} look(s) at these bars"
    yield _at_least("timing", challenger.timing, asked, f"P(timing is skill) of {{:.3f}}{looks}")
    yield _at_least(
        "deflated_sharpe",
        deflated_sharpe(evidence, tries),
        policy.min_deflated_sharpe,
        f"a deflated Sharpe ratio of {{:.3f}}{looks}",
    )
    yield from _folds(evidence, policy)
    if champion is None:
        yield _at_least("sharpe", challenger.sharpe, policy.min_sharpe, "a Sharpe ratio of {:.2f}")
        return
    yield _at_least(
        "better", evidence.probability_better, asked, f"P(better than the champion) of {{:.3f}}{looks}"
    )
    if policy.max_drawdown_ratio is None:
        return
    rival = max(champion.max_drawdown, policy.drawdown_floor)
    floor = f"the {rival:.2%} that a champion's counts at least"
    whose = "the champion's" if champion.max_drawdown == rival else floor
    yield _at_most(
        "drawdown_ratio",
        challenger.max_drawdown / rival if rival else float(challenger.max_drawdown > 0.0) * math.inf,
        policy.max_drawdown_ratio,
        f"a drawdown of {{:.2f}} times {whose}",
    )


def _not_kept(name: str, bound: float, policy: Policy, what: str) -> Verdict:
    """A verdict on what only the training could have kept."""
    passed = not policy.require_training_record
    return Verdict(
        name, passed, "not kept", bound, f"its training kept no record of {what}, as one elsewhere does not"
    )


def _folds(evidence: Evidence, policy: Policy) -> Iterator[Verdict]:
    folds, bound = evidence.folds, policy.min_walk_forward
    if bound is None:
        return
    if folds is None:
        yield _not_kept("folds_timing", bound, policy, "its walk-forward")
        return
    if folds.missing:
        yield Verdict(
            "folds_timing", False, None, bound, f"its walk-forward can't be judged: {folds.missing}"
        )
        return
    yield _at_least("folds_timing", folds.timing, bound, "P(timing is skill) of {:.3f} over its walk-forward")
    moments = folds.moments
    variance = 1.0 / (folds.bars - 1) if folds.trial_variance is None else folds.trial_variance
    luck_of_grid = expected_max_sharpe(folds.trials, variance)
    yield _at_least(
        "folds_sharpe",
        None if moments is None else moments.probabilistic_sharpe(luck_of_grid),
        bound,
        f"P(Sharpe ratio above luck's) of {{:.3f}} over its walk-forward, the best of {folds.trials}",
    )


def deflated_sharpe(evidence: Evidence, tries: int) -> float | None:
    """P(the challenger's true Sharpe ratio is above luck's), after so many looks at the bars of the evidence."""
    moments = evidence.challenger.moments
    if moments is None or evidence.bars < 2:
        return None
    return moments.probabilistic_sharpe(luck(evidence.bars, tries))


def asked_after(probability: float, tries: int) -> float:
    """What is asked for after so many looks, where one is asked for `probability` (Bonferroni, 1936); 0 asks nothing.

    >>> round(asked_after(0.9, 5), 3)
    0.98
    """
    return 1.0 - (1.0 - probability) / max(1, tries) if probability else 0.0


def _at_least(name: str, found: float | None, bound: float, text: str) -> Verdict:
    shown = f"no {name}" if found is None else text.format(found)
    return Verdict(
        name, found is not None and found >= bound, found, bound, f"{shown}, and {bound:.4g} is asked for"
    )


def _at_most(name: str, found: float, bound: float, text: str) -> Verdict:
    return Verdict(
        name, found <= bound, found, bound, f"{text.format(found)}, and at most {bound:.4g} is allowed"
    )
