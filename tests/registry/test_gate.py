"""The promote gate judges the evidence of the last evaluation, and says which rules failed by what numbers."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from config.evidence import PromotionSettings
from registry import (
    Evidence,
    Key,
    Measured,
    Promotion,
    make_candidate,
    open_store,
    promote,
    promote_model,
    record_evaluation,
    rollback,
    verify_log,
)
from registry.errors import (
    GateRefusedError,
    InvalidArgumentError,
    NotAdoptedError,
    QuarantinedError,
    WrongStatusError,
)
from registry.events import EventLog
from tests.small_models import register_copy, sealed_template

KEY = Key("BTCUSDT", "15m")
POLICY = PromotionSettings()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sealed_template(tmp_path_factory.mktemp("template") / "t")


@pytest.fixture
def base(tmp_path: Path, template: Path) -> Path:
    """`champion` in production, `challenger` and `third` registered."""
    for name in ("champion", "challenger", "third"):
        register_copy(template, tmp_path / "registry", name)
    promote_model(
        "champion", base_dir=tmp_path / "registry", policy=PromotionSettings(gate="none"), reason="first"
    )
    return tmp_path / "registry"


def measured(base: Path, model_id: str, **changes: Any) -> Measured:
    values = {
        "digest": open_store(base).view().state.digests[model_id],
        "train_end": "2026-01-01T00:00:00+00:00",
        "cum_return": 0.2,
        "sharpe": 2.0,
        "max_drawdown": 0.1,
        "trades": 40,
        "deflated_sharpe": 0.97,
    }
    return Measured(model_id, **{**values, **changes})


def evidence(base: Path, model_id: str = "challenger", **changes: Any) -> Evidence:
    given = Evidence(
        challenger=measured(base, model_id),
        champion=measured(base, "champion", deflated_sharpe=None),
        evaluated_at=datetime.now(UTC).isoformat(),
        window_start="2026-02-01T00:00:00+00:00",
        window_end="2026-03-01T00:00:00+00:00",
        bars=2000,
        probability_better=0.96,
        mean_difference=1e-5,
    )
    return replace(given, **changes)


def status(base: Path, model_id: str) -> str:
    return open_store(base).view().state.entries[model_id].status


def events(base: Path) -> list[Any]:
    return EventLog(base / "registry_events.jsonl").read_new()[1]


def test_a_model_that_passes_becomes_a_candidate_and_then_production_with_all_that_was_read(
    base: Path,
) -> None:
    found = evidence(base)
    assert record_evaluation(base, found, policy=POLICY).allowed
    assert status(base, "challenger") == "candidate"
    promote(base, [Promotion("challenger", "champion")], policy=POLICY)
    assert status(base, "challenger") == "production"
    decision = events(base)[-1].evidence["decisions"][0]
    assert Evidence.from_dict(decision["evidence"]) == found
    assert decision["policy"]["min_probability"] == POLICY.min_probability
    assert {rule["rule"]: rule["found"] for rule in decision["rules"]}["better"] == 0.96
    assert decision["failed_rules"] == []
    assert verify_log(base).ok


FAILURES: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("bars", {"bars": 499}, {}, "499 out-of-sample bars, and 500"),
    ("trades", {}, {"trades": 9}, "9 trades, and 10"),
    ("drawdown", {}, {"max_drawdown": 0.31}, "a drawdown of 31.00%, and at most 0.3"),
    ("drawdown_ratio", {}, {"max_drawdown": 0.16}, "1.60 times the champion's"),
    ("deflated_sharpe", {}, {"deflated_sharpe": 0.49}, "0.490, and 0.5"),
    ("deflated_sharpe", {}, {"deflated_sharpe": None}, "no deflated_sharpe"),
    ("better", {"probability_better": 0.89}, {}, "0.890, and 0.9"),
    (
        "fresh",
        {"evaluated_at": (datetime.now(UTC) - timedelta(days=8)).isoformat()},
        {},
        "8.0 days old; run `signalserve evaluate challenger`",
    ),
    ("out_of_sample", {"window_start": "2025-12-31T00:00:00+00:00"}, {}, "not after the training spans"),
    ("same_artefacts", {}, {"digest": "0" * 64}, "challenger changed since the evaluation"),
]


@pytest.mark.parametrize(("rule", "changes", "own", "text"), FAILURES, ids=[case[0] for case in FAILURES])
def test_each_rule_refuses_with_its_numbers(
    base: Path, rule: str, changes: dict[str, Any], own: dict[str, Any], text: str
) -> None:
    found = evidence(base, challenger=measured(base, "challenger", **own), **changes)
    decision = record_evaluation(base, found, policy=POLICY)
    also = ["drawdown_ratio"] if rule == "drawdown" else []  # it is many times the champion's, too
    assert [failed.name for failed in decision.failed] == [rule, *also]
    assert status(base, "challenger") == "success"
    with pytest.raises(GateRefusedError) as caught:
        promote(base, [Promotion("challenger")], policy=POLICY)
    assert text in str(caught.value)
    assert caught.value.metadata["failed_rules"].split(",")[0] == rule
    assert text in caught.value.metadata[f"rule_{rule}"]
    assert status(base, "champion") == "production"
    with pytest.raises(GateRefusedError):
        make_candidate(base, "challenger", policy=POLICY)


def test_every_failed_rule_is_listed_and_force_with_a_reason_overrides_them(base: Path) -> None:
    found = evidence(base, challenger=measured(base, "challenger", trades=1), probability_better=0.2)
    record_evaluation(base, found, policy=POLICY)
    with pytest.raises(GateRefusedError, match=r"trades: 1 trades.*better: P"):
        promote(base, [Promotion("challenger")], policy=POLICY)
    with pytest.raises(InvalidArgumentError, match="reason"):
        promote(base, [Promotion("challenger")], policy=POLICY, force=True)
    promote(base, [Promotion("challenger")], policy=POLICY, force=True, reason="the desk insists")
    event = events(base)[-1]
    assert event.forced
    assert event.evidence["decisions"][0]["overridden_rules"] == ["trades", "better"]


def test_a_model_without_evidence_is_refused_unless_the_gate_is_off(base: Path) -> None:
    with pytest.raises(GateRefusedError, match="never evaluated; run `signalserve evaluate challenger`"):
        promote(base, [Promotion("challenger")], policy=POLICY)
    promote(base, [Promotion("challenger")], policy=PromotionSettings(gate="none"))
    assert events(base)[-1].evidence["decisions"][0]["evidence_rules"] == "none in force"


def test_evidence_against_another_champion_does_not_count(base: Path) -> None:
    record_evaluation(base, evidence(base), policy=POLICY)
    promote(base, [Promotion("third")], policy=POLICY, force=True, reason="hurry")
    with pytest.raises(GateRefusedError, match="compared with champion, and third is in production"):
        promote(base, [Promotion("challenger")], policy=POLICY)


def test_a_key_without_a_champion_asks_for_an_absolute_bar(tmp_path: Path, template: Path) -> None:
    base = tmp_path / "registry"
    register_copy(template, base, "lone")
    alone = {"champion": None, "probability_better": None, "mean_difference": None}

    def lone(sharpe: float) -> Evidence:
        return Evidence(
            challenger=measured(base, "lone", sharpe=sharpe),
            evaluated_at=datetime.now(UTC).isoformat(),
            window_start="2026-02-01T00:00:00+00:00",
            window_end="2026-03-01T00:00:00+00:00",
            bars=2000,
            **alone,
        )

    record_evaluation(base, lone(-0.1), policy=POLICY)
    with pytest.raises(GateRefusedError, match=r"sharpe: a Sharpe ratio of -0\.10, and 0 is asked for"):
        promote(base, [Promotion("lone")], policy=POLICY)
    record_evaluation(base, lone(0.1), policy=POLICY)
    promote(base, [Promotion("lone")], policy=POLICY)
    assert status(base, "lone") == "production"


def test_a_basket_is_refused_whole_and_names_each_model(base: Path, template: Path) -> None:
    register_copy(template, base, "eth", symbol="ETHUSDT")
    record_evaluation(base, evidence(base), policy=POLICY)
    with pytest.raises(GateRefusedError, match="eth: evidence"):
        promote(base, [Promotion("challenger"), Promotion("eth")], policy=POLICY)
    assert status(base, "challenger") == "candidate"


def test_tries_on_overlapping_bars_are_counted_and_those_on_other_bars_are_not(base: Path) -> None:
    for start, end in (
        ("2026-02-01", "2026-02-10"),
        ("2026-02-05", "2026-02-20"),
        ("2026-04-01", "2026-05-01"),
    ):
        found = evidence(
            base, window_start=f"{start}T00:00:00+00:00", window_end=f"{end}T00:00:00+00:00", bars=10
        )
        record_evaluation(base, found, policy=POLICY)
    state = open_store(base).view().state
    assert state.tries(KEY, "2026-02-08T00:00:00+00:00", "2026-03-01T00:00:00+00:00") == 2
    assert state.tries(KEY, "2026-02-15T00:00:00+00:00", "2026-06-01T00:00:00+00:00") == 2
    assert state.tries(Key("ETHUSDT", "15m"), "2026-01-01T00:00:00+00:00", "2026-06-01T00:00:00+00:00") == 0


def test_production_failed_and_unadopted_models_are_not_evaluated(base: Path) -> None:
    with pytest.raises(WrongStatusError, match="champion that others are compared with"):
        record_evaluation(base, evidence(base, "champion"), policy=POLICY)
    index = base / "registry_index.csv"
    index.write_text(index.read_text() + "legacy,BTCUSDT,15m,rf,2026-01-01,x,0.1,1.0,success\n")
    with pytest.raises(NotAdoptedError):
        record_evaluation(
            base,
            evidence(base, challenger=replace(measured(base, "third"), model_id="legacy")),
            policy=POLICY,
        )


def test_what_a_rollback_left_behind_stays_out_however_good_its_evidence(base: Path) -> None:
    record_evaluation(base, evidence(base), policy=POLICY)
    promote(base, [Promotion("challenger")], policy=POLICY)
    rollback(base, [KEY], reason="bad day")
    decision = record_evaluation(base, evidence(base), policy=POLICY)
    assert [rule.name for rule in decision.failed] == ["quarantined"]
    assert status(base, "challenger") == "archived"
    with pytest.raises(QuarantinedError, match="force and a reason"):
        promote(base, [Promotion("challenger")], policy=POLICY)


def test_an_archived_model_comes_back_as_a_candidate_when_it_passes_anew(base: Path) -> None:
    promote_model("challenger", "archived", base, reason="rest")
    record_evaluation(base, evidence(base), policy=POLICY)
    assert status(base, "challenger") == "candidate"
    assert verify_log(base).ok
