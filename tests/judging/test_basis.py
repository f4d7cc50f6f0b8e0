"""Of a candidate, and of what is in production, it is said what let it in, by which costs, and who measured."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from signalserve.common.key import Key
from signalserve.config.evidence import PromotionSettings
from signalserve.judging import Evidence, Measured
from signalserve.judging.sharpe import ReturnMoments
from signalserve.registry import Promotion
from signalserve.registry.basis import Basis
from tests.registries import recorded, registry_at
from tests.small_models import register_copy

KEY = Key("BTCUSDT", "15m")
COSTS = {"fee_bps": 5.0, "slippage_bps": 2.0}


@pytest.fixture
def base(tmp_path: Path, template: Path) -> Path:
    """`first` in production by no gate, `second` and `third` registered."""
    for name in ("first", "second", "third"):
        register_copy(template, tmp_path / "registry", name)
    registry_at(tmp_path / "registry").promote([Promotion("first")])
    return tmp_path / "registry"


def evidence(base: Path, model_id: str, **changes: Any) -> Evidence:
    """An evaluation that passes the gate, on the bars of the last days."""
    state, now = registry_at(base).state, datetime.now(UTC)
    good: dict[str, Any] = {"moments": ReturnMoments(2000, 0.05, 0.0, 3.0), "timing": 0.99}

    def measured(name: str, **more: Any) -> Measured:
        trained_to = (now - timedelta(days=90)).isoformat()
        return Measured(name, state.digests[name], trained_to, 0.2, 2.0, 0.1, 40, **more)

    champion = state.production(KEY)
    found = Evidence(
        challenger=measured(model_id, **good),
        champion=measured(champion) if champion else None,
        evaluated_at=(now + timedelta(seconds=2)).isoformat(),
        window_start=(now - timedelta(days=21)).isoformat(),
        window_end=(now + timedelta(seconds=1)).isoformat(),
        bars=2000,
        bar_minutes=15.0,
        probability_better=0.99,
        resamples=2000,
        seed=42,
        measured_by="trainer",
        rules=COSTS,
    )
    return replace(found, **changes)


@pytest.mark.parametrize("training_span", ["declared", "registered"])
def test_a_candidate_says_who_measured_it_by_which_costs_and_who_vouches_for_its_training(
    base: Path, training_span: str
) -> None:
    registry = registry_at(base, PromotionSettings())
    given = evidence(base, "second")
    if training_span == "registered":
        given = replace(given, window_start=datetime.now(UTC).isoformat())
    assert registry.record_evaluation(*recorded(given)).allowed
    found = registry.state.basis("second")
    assert found == Basis("evidence", 5.0, 2.0, "trainer", training_span)
    assert found.text == (
        f"let in on evidence, measured by trainer at 5 + 2 bps a side, training span {training_span}"
    )
    assert registry.state.basis("first") == Basis("none")
    assert registry.state.basis("third") is None


def test_force_and_a_hand_are_said_and_a_rollback_keeps_what_a_model_was_let_in_on(base: Path) -> None:
    registry = registry_at(base, PromotionSettings())
    registry.record_evaluation(*recorded(evidence(base, "second", measured_by="brought")))
    registry.promote([Promotion("second")])
    let_in = Basis("evidence", 5.0, 2.0, "brought", "declared")
    assert registry.state.basis("second") == let_in
    registry.promote([Promotion("third")], force=True, reason="the desk insists")
    assert registry.state.basis("third") == Basis("forced")
    assert registry.state.basis("third").text == "let in by force, measured by nobody"
    registry.rollback([KEY], reason="it was wrong")
    assert registry.state.basis("second") == let_in
    assert registry.state.basis("third") is None
    index = base / "registry_index.csv"
    text = index.read_text()
    index.write_text("".join(line.replace("archived", "candidate") for line in text.splitlines(True)))
    state = registry.view(wait=True).state
    assert [state.basis(name) for name in ("first", "third")] == [Basis("by_hand")] * 2
    index.write_text(text)
