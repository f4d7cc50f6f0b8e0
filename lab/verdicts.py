"""What the gate says of a model: as the log has it of its last evaluation, and as it is now.

The gate is the registry's own; nothing is judged by another rule here. A judgement of now may differ from the one that
was recorded: evidence ages, another champion comes, a setting changes. Those verdicts are called stale.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from signalserve.judging import asked_after
from signalserve.lab.plain import mapping, moment, number, plain, text_of
from signalserve.registry import Registry, Status, Verdict
from signalserve.registry.events import Action, Event
from signalserve.registry.gate import champion_of
from signalserve.registry.state import RegistryState

ABSENT, STALE, CURRENT, IN_PRODUCTION, FAILED = "absent", "stale", "current", "in_production", "failed"
# these ask whether the evidence still speaks of what would be promoted today, the others what it says
_OF_THE_MOMENT = frozenset({"fresh", "recent_bars", "same_artefacts", "same_champion", "same_settings"})


@dataclass(frozen=True)
class Rule:
    """One verdict: what was found, the bound that it was held against; `text` says why it failed."""

    name: str
    passed: bool
    found: Any
    bound: Any
    text: str = ""


@dataclass(frozen=True)
class Evaluation:
    """An evaluation as the log has it: the record that was judged, and the verdicts of that moment."""

    revision: int
    time: datetime | None
    actor: str
    champion: str
    passed: bool
    rules: tuple[Rule, ...]
    tries: int | None
    evidence: Mapping[str, Any]


@dataclass(frozen=True)
class Looks:
    """Looks at the bars of the evidence that the log knows of now.

    `asked` is the probability that `timing` and `better` must have after them, `asked_of_one` after a single one.
    """

    count: int
    asked_of_one: float
    asked: float


@dataclass(frozen=True)
class Judgement:
    """What the gate would say of a promote now.

    `state`: `absent` (never evaluated, or archived since), `stale` (the evidence is of other files, another champion,
    other settings, or too old) or `current`; there is nothing to judge of one that is `in_production` or whose training
    `failed`. `against` is the champion now, empty for none. `looks` is None where nobody counts them.
    """

    model_id: str
    against: str
    state: str
    allowed: bool
    text: str
    rules: tuple[Rule, ...]
    evidence: Mapping[str, Any] | None
    looks: Looks | None = None


def judgement(registry: Registry, state: RegistryState, model_id: str) -> Judgement:
    """What the registry's gate says of a model now; `model_id` is in the state."""
    entry = state.entries[model_id]
    standing = registry.standing(state, entry.key)
    is_there = standing == model_id and not state.is_by_hand(model_id, hold=registry.holds_hand_edits)
    champion = text_of(standing if is_there else champion_of(state, entry, hold=registry.holds_hand_edits))
    evidence = state.evidence.get(model_id)
    if entry.status == Status.FAILED:
        return Judgement(model_id, champion, FAILED, False, "its training failed", (), None)
    if is_there:
        record = None if evidence is None else plain(evidence)
        return Judgement(model_id, champion, IN_PRODUCTION, True, "it is in production", (), record)
    decision = registry.gate.judge(state, entry, force=False)
    failed = decision.failed
    if evidence is None:
        now = ABSENT
    elif any(verdict.name in _OF_THE_MOMENT for verdict in failed):
        now = STALE
    else:
        now = CURRENT
    if failed:
        text = "the gate would refuse it: " + "; ".join(f"{item.name}: {item.text}" for item in failed)
    else:
        text = "the gate would let it pass"
    return Judgement(
        model_id,
        champion,
        now,
        decision.allowed,
        text_of(text),
        rules_of(decision.verdicts),
        None if evidence is None else plain(evidence),
        _looks(decision.record),
    )


def _looks(record: Mapping[str, Any]) -> Looks | None:
    count = record.get("tries")
    asked = number(mapping(record.get("policy")).get("min_probability"))
    if not isinstance(count, int) or not asked or record.get("evidence_verdicts") != "in force":
        return None
    return Looks(count, asked, asked_after(asked, count))


def last_evaluation(events: Sequence[Event], model_id: str) -> Evaluation | None:
    """The newest evaluation of a model in the log; None where there is none."""
    for event in reversed(events):
        if event.action == Action.EVALUATE and mapping(event.evidence).get("challenger") == model_id:
            return evaluation_of(event)
    return None


def evaluation_of(event: Event) -> Evaluation:
    """An evaluate event, taken apart; what an old log lacks is empty."""
    record = mapping(event.evidence)
    rules = recorded_rules(record)
    tries = record.get("tries")
    return Evaluation(
        revision=event.revision,
        time=moment(event.time),
        actor=text_of(event.actor),
        champion=text_of(record.get("champion")),
        passed=not failed_names(record),
        rules=rules,
        tries=tries if isinstance(tries, int) else None,
        evidence=plain(mapping(record.get("evidence"))),
    )


def failed_names(record: Mapping[str, Any]) -> tuple[str, ...]:
    """The verdicts of a decision's record that failed; `failed_rules` is what older logs call them."""
    failed = record.get("failed_verdicts", record.get("failed_rules", ()))
    return tuple(map(text_of, failed)) if isinstance(failed, list | tuple) else ()


def recorded_rules(record: Mapping[str, Any]) -> tuple[Rule, ...]:
    """The verdicts of a decision's record."""
    found: list[Rule] = []
    items = record.get("verdicts", record.get("rules", ()))
    for item in items if isinstance(items, list | tuple) else ():
        values = mapping(item)
        name = text_of(values.get("verdict", values.get("rule", values.get("name"))))
        found.append(
            Rule(name, values.get("passed") is True, plain(values.get("found")), plain(values.get("bound")))
        )
    return tuple(found)


def rules_of(verdicts: Iterable[Verdict]) -> tuple[Rule, ...]:
    """Verdicts, as pages show them; a passed one has no text."""
    return tuple(
        Rule(
            item.name,
            item.passed,
            plain(item.found),
            plain(item.bound),
            "" if item.passed else text_of(item.text),
        )
        for item in verdicts
    )
