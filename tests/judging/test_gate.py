"""The promote gate judges the evidence of the last evaluation, and says which rules failed by what numbers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from signalserve.common.key import Key
from signalserve.config.evidence import PromotionSettings
from signalserve.judging import (
    Evidence,
    Folds,
    Measured,
    Policy,
    PromoteGate,
    RecipeOf,
    TrainedOn,
    vouched_by,
)
from signalserve.judging.sharpe import ReturnMoments
from signalserve.registry import Promotion, Selection, promote_model, verify_log
from signalserve.registry.errors import (
    GateRefusedError,
    InvalidArgumentError,
    NotAdoptedError,
    QuarantinedError,
    RequestIdReusedError,
    WrongStatusError,
)
from signalserve.registry.events import EventLog
from signalserve.registry.folder_store import open_store
from tests.registries import gate_of, recorded, registry_at
from tests.small_models import register_copy

KEY = Key("BTCUSDT", "15m")
POLICY = PromotionSettings(max_data_age=None)


@pytest.fixture
def base(tmp_path: Path, template: Path) -> Path:
    """`champion` in production, `challenger` and `third` registered."""
    for name in ("champion", "challenger", "third"):
        register_copy(template, tmp_path / "registry", name)
    promote_model(
        "champion",
        base_dir=tmp_path / "registry",
        reason="first",
        gate=gate_of(policy=PromotionSettings(gate="none")),
    )
    return tmp_path / "registry"


RULES: dict[str, Any] = {
    "proba_entry": 0.55,
    "proba_exit": 0.45,
    "fee_bps": 5.0,
    "slippage_bps": 2.0,
    "warmup_bars": 0,
    "allow_short": False,
}


def folds(**changes: Any) -> Folds:
    return replace(Folds("2025-06-01", "2026-01-01", 2000, 0.1, 2.0, moments(0.05), 0.9), **changes)


def moments(sharpe: float) -> ReturnMoments:
    """Those of 2,000 normal returns; a ratio of 0.05 a bar is above zero with a probability of 0.987."""
    return ReturnMoments(2000, sharpe, 0.0, 3.0)


def measured(base: Path, model_id: str, **changes: Any) -> Measured:
    values = {
        "digest": open_store(base).view().state.digests[model_id],
        "train_end": "2026-01-01T00:00:00+00:00",
        "cum_return": 0.2,
        "sharpe": 2.0,
        "max_drawdown": 0.1,
        "trades": 40,
        "horizon_bars": 4,
        "moments": moments(0.05),
        "timing": 0.97,
    }
    return Measured(model_id, **{**values, **changes})


def evidence_of(base: Path, model_id: str) -> Evidence:
    """As `evidence`, for a key without a champion."""
    return Evidence(
        challenger=measured(base, model_id),
        champion=None,
        evaluated_at=datetime.now(UTC).isoformat(),
        window_start="2026-02-01T00:00:00+00:00",
        window_end="2026-03-01T00:00:00+00:00",
        bars=2000,
        bar_minutes=15.0,
        rules=RULES,
    )


def evidence(base: Path, model_id: str = "challenger", **changes: Any) -> Evidence:
    given = Evidence(
        challenger=measured(base, model_id),
        champion=measured(base, "champion"),
        evaluated_at=datetime.now(UTC).isoformat(),
        window_start="2026-02-01T00:00:00+00:00",
        window_end="2026-03-01T00:00:00+00:00",
        bars=2000,
        bar_minutes=15.0,
        probability_better=0.96,
        mean_difference=1e-5,
        resamples=POLICY.resamples,
        seed=POLICY.seed,
        rules=RULES,
    )
    return replace(given, **changes)


def status(base: Path, model_id: str) -> str:
    return open_store(base).view().state.entries[model_id].status


def events(base: Path) -> list[Any]:
    return EventLog(base / "registry_events.jsonl").read_new().events


def test_a_model_that_passes_becomes_a_candidate_and_then_production_with_all_that_was_read(
    base: Path,
) -> None:
    found = evidence(base)
    assert registry_at(base, policy=POLICY).record_evaluation(*recorded(found)).allowed
    assert status(base, "challenger") == "candidate"
    registry_at(base, policy=POLICY).promote([Promotion("challenger", "champion")])
    assert status(base, "challenger") == "production"
    decision = events(base)[-1].evidence["decisions"][0]
    assert Evidence.from_dict(decision["evidence"]) == found
    assert decision["policy"]["min_probability"] == POLICY.min_probability
    assert {item["verdict"]: item["found"] for item in decision["verdicts"]}["better"] == 0.96
    assert decision["failed_verdicts"] == []
    assert verify_log(base).ok


def ago(**span: float) -> str:
    """A time before now, as the log has it."""
    return (datetime.now(UTC) - timedelta(**span)).isoformat()


FAILURES: list[tuple[str | None, dict[str, Any], dict[str, Any], str]] = [
    ("bars", {"bars": 499}, {}, "499 out-of-sample bars, and 500"),
    ("trades", {}, {"trades": 9}, "9 trades, and 10"),
    ("drawdown", {}, {"max_drawdown": 0.31}, "a drawdown of 31.00%, and at most 0.3"),
    ("drawdown_ratio", {}, {"max_drawdown": 0.16}, "1.60 times the champion's"),
    ("deflated_sharpe", {}, {"moments": moments(-0.0005)}, "0.491 after 1 look(s) at these bars, and 0.5"),
    ("deflated_sharpe", {}, {"moments": None}, "no deflated_sharpe"),
    ("better", {"probability_better": 0.89}, {}, "0.890 after 1 look(s) at these bars, and 0.9"),
    ("timing", {}, {"timing": 0.89}, "P(timing is skill) of 0.890 after 1 look(s) at these bars, and 0.9"),
    ("timing", {}, {"timing": None}, "no timing"),
    ("folds_timing", {"folds": folds(timing=0.49)}, {}, "0.490 over its walk-forward, and 0.5"),
    ("folds_timing", {"folds": Folds(missing="no bars")}, {}, "its walk-forward can't be judged: no bars"),
    # the best of 100 parameter sets without skill would show 0.0566 a bar
    ("folds_sharpe", {"folds": folds(trials=100)}, {}, "0.384 over its walk-forward, the best of 100"),
    (None, {"folds": folds(trials=1)}, {}, ""),
    ("folds_sharpe", {"folds": folds(moments=moments(-0.01))}, {}, "0.327 over its walk-forward"),
    (
        "same_bars",
        {"trained_on": TrainedOn(4, 1, "2025-12-01")},
        {},
        "1 of 4 weeks of the training span have other",
    ),
    ("same_bars", {"trained_on": TrainedOn(0)}, {}, "no whole week of the training span"),
    (None, {"trained_on": TrainedOn(4)}, {}, ""),
    ("better", {"probability_better": None}, {}, "no better"),
    ("fresh", {"evaluated_at": ago(days=8)}, {}, "8.0 days old; run `signalserve evaluate challenger`"),
    ("fresh", {"evaluated_at": ago(days=-2)}, {}, "-2.0 days old"),
    ("recent_bars", {"window_end": ago(days=-2)}, {}, "-2.0 days old"),
    ("same_artefacts", {}, {"digest": "0" * 64}, "challenger changed since the evaluation"),
    ("same_settings", {"rules": {**RULES, "fee_bps": 0.0}}, {}, "fee_bps 0.0, now 5.0"),
    ("same_settings", {"resamples": 100}, {}, "resamples 100, now 2000"),
    ("same_settings", {"seed": 7}, {}, "seed 7, now 42"),
    ("out_of_sample", {"window_start": "2025-12-31T00:00:00+00:00"}, {}, "not after the training spans"),
    # the last bar that the labels reach, and the one after it
    ("out_of_sample", {}, {"train_end": "2026-01-31T23:00:00+00:00"}, "not after the training spans"),
    (None, {}, {"train_end": "2026-01-31T22:45:00+00:00"}, ""),
]


@pytest.mark.parametrize(
    ("rule", "changes", "own", "text"), FAILURES, ids=[str(case[0]) for case in FAILURES]
)
def test_each_rule_refuses_with_its_numbers(
    base: Path, rule: str | None, changes: dict[str, Any], own: dict[str, Any], text: str
) -> None:
    found = evidence(base, challenger=measured(base, "challenger", **own), **changes)
    decision = registry_at(base, policy=POLICY, rules=RULES).record_evaluation(*recorded(found))
    if rule is None:
        assert status(base, "challenger") == "candidate"
        return
    also = ["drawdown_ratio"] if rule == "drawdown" else []  # it is many times the champion's, too
    assert [failed.name for failed in decision.failed] == [rule, *also]
    assert status(base, "challenger") == "success"
    with pytest.raises(GateRefusedError) as caught:
        registry_at(base, policy=POLICY, rules=RULES).promote([Promotion("challenger")])
    assert text in str(caught.value)
    assert caught.value.metadata["failed_verdicts"].split(",")[0] == rule
    assert text in caught.value.metadata[f"verdict_{rule}"]
    assert status(base, "champion") == "production"
    with pytest.raises(GateRefusedError):
        registry_at(base, policy=POLICY, rules=RULES).make_candidate("challenger")


CHAMPIONS = [
    ("same_artefacts", {"digest": "0" * 64}),
    ("out_of_sample", {"train_end": "2026-02-01T00:00:00+00:00"}),
    ("out_of_sample", {"train_end": "2026-01-31T22:45:00+00:00", "horizon_bars": 5}),
]


@pytest.mark.parametrize(("rule", "own"), CHAMPIONS)
def test_the_champion_must_be_the_measured_one_and_new_to_the_bars_too(
    base: Path, rule: str, own: dict[str, Any]
) -> None:
    found = evidence(base, champion=measured(base, "champion", **own))
    decision = registry_at(base, policy=POLICY).record_evaluation(*recorded(found))
    assert [failed.name for failed in decision.failed] == [rule]


@pytest.mark.parametrize(
    ("champions", "own", "allowed"), [(0.01, 0.02, True), (0.0, 0.07, True), (0.01, 0.08, False)]
)
def test_a_champion_that_hardly_traded_blocks_nobody_by_its_small_drawdown(
    base: Path, champions: float, own: float, allowed: bool
) -> None:
    champion = measured(base, "champion", max_drawdown=champions, trades=1)
    found = evidence(base, challenger=measured(base, "challenger", max_drawdown=own), champion=champion)
    decision = registry_at(base, policy=POLICY).record_evaluation(*recorded(found))
    assert decision.allowed == allowed
    assert allowed or "1.60 times the 5.00% that a champion's counts at least" in decision.failed[0].text


@pytest.mark.parametrize(
    ("looks", "timed", "allowed"), [(1, 0.9, True), (2, 0.9, False), (2, 0.95, True), (5, 0.979, False)]
)
def test_each_look_is_paid_for_by_what_is_asked(base: Path, looks: int, timed: float, allowed: bool) -> None:
    found = evidence(base, challenger=measured(base, "challenger", timing=timed), probability_better=timed)
    decisions = [registry_at(base, policy=POLICY).record_evaluation(*recorded(found)) for _ in range(looks)]
    assert {failed.name for failed in decisions[-1].failed} == (set() if allowed else {"timing", "better"})


@pytest.mark.parametrize("who", ["trainer", "evaluate", "brought"])
def test_the_policy_says_who_may_have_measured(base: Path, who: str) -> None:
    policy = POLICY.model_copy(update={"accept": ("trainer", "evaluate")})
    decision = registry_at(base, policy=policy).record_evaluation(*recorded(evidence(base, measured_by=who)))
    assert [failed.name for failed in decision.failed] == ([] if who != "brought" else ["measured_by"])


def test_only_bars_of_after_the_registration_count_where_that_is_asked(base: Path) -> None:
    policy = POLICY.model_copy(update={"training_span": "registered"})
    for start, vouched in (("2026-02-01T00:00:00+00:00", "declared"), (ago(days=-1), "registered")):
        found = evidence(base, window_start=start, window_end=start, evaluated_at=start)
        decision = registry_at(base, policy=policy).record_evaluation(*recorded(found))
        [span] = [verdict for verdict in decision.verdicts if verdict.name == "training_span"]
        assert (span.found, span.passed) == (vouched, vouched == "registered")


def test_bars_that_are_too_old_are_refused_where_the_configuration_says_how_old(base: Path) -> None:
    policy = PromotionSettings(max_data_age=timedelta(days=2))
    assert (
        registry_at(base, policy=policy)
        .record_evaluation(*recorded(evidence(base, window_end=ago(days=1))))
        .allowed
    )
    decision = registry_at(base, policy=policy).record_evaluation(
        *recorded(evidence(base, window_end=ago(days=3)))
    )
    assert next(rule.text for rule in decision.failed).endswith(
        "3.0 days old; bring the bars up to date and run `signalserve evaluate challenger`"
    )


@pytest.mark.parametrize(
    "broken",
    [
        {"bars": None},
        {"probability_better": "high"},
        {"evaluated_at": "soon"},
        {"challenger": {"model_id": "x"}},
    ],
)
def test_a_record_that_says_no_number_is_refused_and_nothing_is_made_of_it(
    base: Path, broken: dict[str, Any]
) -> None:
    state = open_store(base).view().state
    entry = state.entries["challenger"]
    state = state.copy()
    state.take_evidence("challenger", KEY, evidence(base).to_dict() | broken)
    decision = gate_of(POLICY, RULES).judge(state, entry, force=False)
    assert [rule.name for rule in decision.failed] == ["evidence"]
    assert "broken" in decision.failed[0].text


def test_not_a_number_is_no_evidence(base: Path) -> None:
    found = evidence(base, challenger=measured(base, "challenger", max_drawdown=float("nan")))
    decision = registry_at(base, policy=POLICY).record_evaluation(*recorded(found))
    assert [rule.name for rule in decision.failed] == ["evidence"]


def test_every_failed_rule_is_listed_and_force_with_a_reason_overrides_them(base: Path) -> None:
    found = evidence(base, challenger=measured(base, "challenger", trades=1), probability_better=0.2)
    registry_at(base, policy=POLICY).record_evaluation(*recorded(found))
    with pytest.raises(GateRefusedError, match=r"trades: 1 trades.*better: P"):
        registry_at(base, policy=POLICY).promote([Promotion("challenger")])
    with pytest.raises(InvalidArgumentError, match="reason"):
        registry_at(base, policy=POLICY).promote([Promotion("challenger")], force=True)
    registry_at(base, policy=POLICY).promote([Promotion("challenger")], force=True, reason="the desk insists")
    event = events(base)[-1]
    assert event.forced
    assert event.evidence["decisions"][0]["overridden_verdicts"] == ["trades", "better"]


def test_a_model_without_evidence_is_refused_unless_the_gate_is_off(base: Path) -> None:
    with pytest.raises(
        GateRefusedError, match="no evaluation that counts now; run `signalserve evaluate challenger`"
    ):
        registry_at(base, policy=POLICY).promote([Promotion("challenger")])
    registry_at(base, policy=PromotionSettings(gate="none")).promote([Promotion("challenger")])
    assert events(base)[-1].evidence["decisions"][0]["evidence_verdicts"] == "none in force"


def test_evidence_against_another_champion_does_not_count(base: Path) -> None:
    registry_at(base, policy=POLICY).record_evaluation(*recorded(evidence(base)))
    registry_at(base, policy=POLICY).promote([Promotion("third")], force=True, reason="hurry")
    with pytest.raises(GateRefusedError, match="compared with champion, and third is in production"):
        registry_at(base, policy=POLICY).promote([Promotion("challenger")])


def test_a_key_without_a_champion_asks_for_an_absolute_bar(tmp_path: Path, template: Path) -> None:
    base = tmp_path / "registry"
    register_copy(template, base, "lone")
    alone = {"champion": None, "probability_better": None, "mean_difference": None}

    def lone(sharpe: float, timed: float = 0.97) -> Evidence:
        return Evidence(
            challenger=measured(base, "lone", sharpe=sharpe, timing=timed),
            evaluated_at=datetime.now(UTC).isoformat(),
            window_start="2026-02-01T00:00:00+00:00",
            window_end="2026-03-01T00:00:00+00:00",
            bars=2000,
            **alone,
        )

    registry_at(base, policy=POLICY).record_evaluation(*recorded(lone(-0.1)))
    with pytest.raises(GateRefusedError, match=r"sharpe: a Sharpe ratio of -0\.10, and 0 is asked for"):
        registry_at(base, policy=POLICY).promote([Promotion("lone")])
    # its own shifted copies are the rival of a model without a champion
    registry_at(base, policy=POLICY).record_evaluation(*recorded(lone(0.1, timed=0.94)))
    with pytest.raises(GateRefusedError, match=r"timing: .* after 2 look\(s\) .*, and 0\.95 is asked for"):
        registry_at(base, policy=POLICY).promote([Promotion("lone")])
    registry_at(base, policy=POLICY).record_evaluation(*recorded(lone(0.1)))
    registry_at(base, policy=POLICY).promote([Promotion("lone")])
    assert status(base, "lone") == "production"


def test_a_basket_is_refused_whole_and_names_each_model(base: Path, template: Path) -> None:
    register_copy(template, base, "eth", symbol="ETHUSDT")
    registry_at(base, policy=POLICY).record_evaluation(*recorded(evidence(base)))
    with pytest.raises(GateRefusedError, match="eth: evidence"):
        registry_at(base, policy=POLICY).promote([Promotion("challenger"), Promotion("eth")])
    assert status(base, "challenger") == "candidate"
    register_copy(template, base, "sol", symbol="SOLUSDT")
    with pytest.raises(GateRefusedError) as caught:
        registry_at(base, policy=POLICY).promote([Promotion("eth"), Promotion("sol")])
    assert caught.value.metadata["verdict_evidence"] == (
        "eth: it has no evaluation that counts now; run `signalserve evaluate eth`; "
        "sol: it has no evaluation that counts now; run `signalserve evaluate sol`"
    )


def test_tries_on_overlapping_bars_are_counted_and_those_on_other_bars_are_not(base: Path) -> None:
    for start, end in (
        ("2026-02-01", "2026-02-10"),
        ("2026-02-05", "2026-02-20"),
        ("2026-04-01", "2026-05-01"),
    ):
        found = evidence(
            base, window_start=f"{start}T00:00:00+00:00", window_end=f"{end}T00:00:00+00:00", bars=10
        )
        registry_at(base, policy=POLICY).record_evaluation(*recorded(found))
    state = open_store(base).view().state
    # bounds belong to a span
    assert state.tries(KEY, "2026-02-20T00:00:00+00:00", "2026-04-01T00:00:00+00:00") == 2
    assert state.tries(KEY, "2026-02-20T00:00:01+00:00", "2026-03-31T23:59:59+00:00") == 0
    assert state.tries(KEY, "2026-02-08T00:00:00+00:00", "2026-03-01T00:00:00+00:00") == 2
    assert state.tries(KEY, "2026-02-15T00:00:00+00:00", "2026-06-01T00:00:00+00:00") == 2
    assert state.tries(Key("ETHUSDT", "15m"), "2026-01-01T00:00:00+00:00", "2026-06-01T00:00:00+00:00") == 0


def test_a_look_since_the_evaluation_deflates_a_promote(base: Path) -> None:
    found = evidence(base, challenger=measured(base, "challenger", moments=moments(0.02)))
    assert registry_at(base, policy=POLICY).record_evaluation(*recorded(found)).allowed
    for _ in range(5):
        registry_at(base, policy=POLICY).record_evaluation(*recorded(evidence(base, "third")))
    with pytest.raises(GateRefusedError, match=r"deflated_sharpe: .* after 6 look\(s\) at these bars"):
        registry_at(base, policy=POLICY).promote([Promotion("challenger")])


def test_models_that_training_measured_on_the_bars_are_looks_at_them_also_when_they_are_gone(
    tmp_path: Path, template: Path
) -> None:
    base = tmp_path / "registry"
    tested = {"test_start": "2026-02-01T00:00:00+00:00", "test_end": "2026-03-01T00:00:00+00:00"}
    for number in range(6):
        register_copy(template, base, f"m{number}", extra=tested)
    register_copy(
        template, base, "later", extra={name: text.replace("2026", "2027") for name, text in tested.items()}
    )
    registry_at(base).clean(selection=Selection(keep=2))
    span = ("2026-02-20T00:00:00+00:00", "2026-04-01T00:00:00+00:00")
    assert open_store(base).view().state.tries(KEY, *span) == 6
    # an evaluation of a model that was counted already is the same look; the next one is not
    found = replace(evidence_of(base, "m5"), window_start=span[0], window_end=span[1])
    for tries in (6, 7):
        assert registry_at(base, policy=POLICY).record_evaluation(*recorded(found)).record["tries"] == tries


def test_evaluations_at_the_same_time_each_count(base: Path) -> None:
    found = [evidence(base, name) for name in ("challenger", "third") for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        decisions = list(
            pool.map(lambda item: registry_at(base, policy=POLICY).record_evaluation(*recorded(item)), found)
        )
    assert sorted(decision.record["tries"] for decision in decisions) == list(range(1, 9))


def test_an_evaluation_with_a_known_request_id_is_kept_once(base: Path) -> None:
    first = registry_at(base, policy=POLICY).record_evaluation(
        *recorded(evidence(base)), request_id="job:evaluate"
    )
    again = registry_at(base, policy=POLICY).record_evaluation(
        *recorded(evidence(base, probability_better=0.1)), request_id="job:evaluate"
    )
    assert (first.allowed, again.allowed) == (True, True)
    assert [event.action for event in events(base)].count("evaluate") == 1
    with pytest.raises(RequestIdReusedError):
        registry_at(base, policy=POLICY).record_evaluation(
            *recorded(evidence(base, "third")), request_id="job:evaluate"
        )


def test_production_failed_and_unadopted_models_are_not_evaluated(base: Path) -> None:
    with pytest.raises(WrongStatusError, match="champion that others are compared with"):
        registry_at(base, policy=POLICY).record_evaluation(*recorded(evidence(base, "champion")))
    index = base / "registry_index.csv"
    index.write_text(index.read_text() + "legacy,BTCUSDT,15m,rf,2026-01-01,x,0.1,1.0,success\n")
    with pytest.raises(NotAdoptedError):
        registry_at(base, policy=POLICY).record_evaluation(
            *recorded(evidence(base, challenger=replace(measured(base, "third"), model_id="legacy")))
        )


def test_what_a_rollback_left_behind_stays_out_however_good_its_evidence(base: Path) -> None:
    registry_at(base, policy=POLICY).record_evaluation(*recorded(evidence(base)))
    registry_at(base, policy=POLICY).promote([Promotion("challenger")])
    registry_at(base).rollback([KEY], reason="bad day")
    decision = registry_at(base, policy=POLICY).record_evaluation(*recorded(evidence(base)))
    assert [rule.name for rule in decision.failed] == ["quarantined"]
    assert status(base, "challenger") == "archived"
    with pytest.raises(QuarantinedError, match="force and a reason"):
        registry_at(base, policy=POLICY).promote([Promotion("challenger")])


def test_an_archived_model_comes_back_as_a_candidate_when_it_passes_anew(base: Path) -> None:
    registry_at(base, policy=POLICY).record_evaluation(*recorded(evidence(base)))
    promote_model("challenger", "archived", base, reason="rest", gate=gate_of())
    with pytest.raises(GateRefusedError, match="no evaluation that counts now"):
        registry_at(base, policy=POLICY).make_candidate("challenger")
    registry_at(base, policy=POLICY).record_evaluation(*recorded(evidence(base)))
    assert status(base, "challenger") == "candidate"
    assert verify_log(base).ok


def test_an_archived_model_is_promoted_by_force_alone(base: Path) -> None:
    promote_model("third", "archived", base, reason="rest", gate=gate_of())
    with pytest.raises(WrongStatusError, match="signalserve evaluate third"):
        registry_at(base, policy=PromotionSettings(gate="none")).promote([Promotion("third")])
    registry_at(base, policy=POLICY).promote([Promotion("third")], force=True, reason="the others are worse")
    assert status(base, "third") == "production"
    assert verify_log(base).ok


@pytest.mark.parametrize(("minutes", "fresh"), [(4, True), (6, False)])
def test_two_clocks_may_differ_by_five_minutes_and_no_more(base: Path, minutes: int, fresh: bool) -> None:
    now = datetime(2026, 4, 1, tzinfo=UTC)
    found = evidence(base, evaluated_at=(now + timedelta(minutes=minutes)).isoformat())
    state = registry_at(base).state.copy()
    state.take_evidence("challenger", KEY, found.to_dict())
    gate = PromoteGate(Policy.of(POLICY), None, clock=lambda: now)
    failed = [verdict.name for verdict in gate.judge(state, state.entries["challenger"], force=False).failed]
    assert failed == ([] if fresh else ["fresh"])


RECIPES = PromotionSettings(max_data_age=None, accept_kinds=("artefact", "recipe"))


@pytest.fixture
def refit(base: Path, template: Path) -> Path:
    """`refit`, registered as a refit of `challenger`; and the latter's evaluation in the log."""
    digest = open_store(base).view().state.digests["challenger"]
    extra = {"refit_of": {"model_id": "challenger", "digest": digest}}
    register_copy(template, base, "refit", extra=extra)
    registry_at(base, policy=POLICY).record_evaluation(*recorded(evidence(base)))
    return base


def carried(base: Path, **changes: Any) -> Evidence:
    """The challenger's evidence, as its refit carries it."""
    own = evidence(base)
    digest = open_store(base).view().state.digests["refit"]
    return replace(own.carried_to("refit", digest), **changes)


def test_a_refit_passes_on_the_evidence_of_the_model_that_was_measured_which_is_one_look(refit: Path) -> None:
    refused = registry_at(refit, policy=POLICY).record_evaluation(*recorded(carried(refit)))
    assert [verdict.name for verdict in refused.failed] == ["artefact"]
    assert "promote challenger, which was measured" in refused.failed[0].text
    decision = registry_at(refit, policy=RECIPES).record_evaluation(*recorded(carried(refit)))
    assert (decision.failed, decision.record["tries"]) == ((), 1)
    registry_at(refit, policy=RECIPES).promote([Promotion("refit", "champion")])
    assert status(refit, "refit") == "production"
    assert events(refit)[-1].evidence["decisions"][0]["evidence"]["recipe_of"]["model_id"] == "challenger"
    assert (
        registry_at(refit, policy=POLICY).record_evaluation(*recorded(evidence(refit))).record["tries"] == 2
    )


@pytest.mark.parametrize(
    ("model_id", "changes", "text"),
    [
        ("refit", {"window_end": "2026-03-02T00:00:00+00:00"}, "the log has no evaluation of challenger on"),
        ("refit", {"recipe_of": RecipeOf("challenger", "0" * 64)}, "challenger changed since"),
        ("refit", {"recipe_of": None}, "refit was not registered as a refit of nothing"),
        ("third", {}, "third was not registered as a refit of challenger"),
    ],
)
def test_a_recipe_is_that_of_a_model_that_the_log_has_measured_on_these_bars(
    refit: Path, model_id: str, changes: dict[str, Any], text: str
) -> None:
    found = carried(refit)
    found = replace(found, challenger=replace(found.challenger, model_id=model_id), **changes)
    decision = registry_at(refit, policy=RECIPES).record_evaluation(*recorded(found))
    failed = {verdict.name: verdict.text for verdict in decision.failed}
    assert text in failed["same_artefacts"]
    # it is a look of its own
    if changes.get("recipe_of", True) is None or model_id == "third" or "window_end" in changes:
        assert decision.record["tries"] == 2


def test_the_training_span_of_a_recipe_is_that_of_the_model_that_was_measured(refit: Path) -> None:
    late = carried(refit, challenger=measured(refit, "refit", train_end="2026-01-31T23:00:00+00:00"))
    decision = registry_at(refit, policy=RECIPES).record_evaluation(*recorded(late))
    assert [verdict.name for verdict in decision.failed] == ["out_of_sample"]
    state = registry_at(refit).state
    now = datetime.now(UTC)
    window = {"window_start": ago(days=-1), "window_end": ago(days=-2)}
    assert vouched_by(carried(refit, **window), state) == "registered"
    state.registered["refit"] = (now + timedelta(days=3)).isoformat()
    assert vouched_by(carried(refit, **window), state) == "registered"
    state.registered["challenger"] = (now + timedelta(days=3)).isoformat()
    assert vouched_by(carried(refit, **window), state) == "declared"


def test_without_an_evaluation_the_hint_names_the_model_to_evaluate(base: Path, template: Path) -> None:
    digest = open_store(base).view().state.digests["challenger"]
    for name, known in (("refit", digest), ("claimed", "0" * 64)):
        register_copy(template, base, name, extra={"refit_of": {"model_id": "challenger", "digest": known}})
    for name, wanted in (("refit", "challenger"), ("claimed", "claimed")):
        with pytest.raises(GateRefusedError, match=f"run `signalserve evaluate {wanted}`"):
            registry_at(base, policy=POLICY).promote([Promotion(name)])
