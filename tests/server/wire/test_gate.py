"""Over the wire the promote gate refuses with each failed rule and its numbers, and force overrides it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from signalserve.client import FailedPrecondition, InvalidArgument
from signalserve.config.evidence import PromotionSettings
from signalserve.config.settings import Settings
from signalserve.judging import Evidence, Measured
from signalserve.judging.sharpe import ReturnMoments
from signalserve.registry.folder_store import open_store
from signalserve.trading.rules import THRESHOLDS, TradingRules
from tests.registries import recorded, registry_at
from tests.server.wire.conftest import Registry, Server
from tests.small_models import register_copy, sealed_template


@pytest.fixture(autouse=True)
def in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGNALSERVE__PROMOTION__GATE", "evidence")


def evaluated(registry: Registry, probability: float, **changes: Any) -> None:
    """An evaluation of model b against a, the champion; `changes` to the rules of its simulation."""
    digests = open_store(registry.base).view().state.digests

    def measured(name: str, **more: Any) -> Measured:
        model_id = registry[name]
        return Measured(model_id, digests[model_id], "2026-01-01T00:00:00+00:00", 0.1, 1.5, 0.1, 40, **more)

    policy, rules = PromotionSettings(), TradingRules.of(Settings().trading).used_for(THRESHOLDS)

    evidence = Evidence(
        challenger=measured("b", moments=ReturnMoments(2000, 0.05, 0.0, 3.0), timing=0.97),
        champion=measured("a"),
        evaluated_at=datetime.now(UTC).isoformat(),
        window_start="2026-02-01T00:00:00+00:00",
        window_end=(datetime.now(UTC) - timedelta(days=1)).isoformat(),
        bars=2000,
        probability_better=probability,
        resamples=policy.resamples,
        seed=policy.seed,
        rules={**rules, **changes},
    )
    registry_at(registry.base, policy=policy, rules=rules).record_evaluation(*recorded(evidence))


def test_a_promote_is_refused_with_the_numbers_of_each_failed_rule(
    registry: Registry, serve: Callable[..., Server]
) -> None:
    server = serve(registry.base, promotion={"min_trades": 50})
    with pytest.raises(FailedPrecondition) as caught:
        server.client.promote(registry["b"])
    assert caught.value.reason == "GATE_REFUSED"
    assert "signalserve evaluate" in caught.value.metadata["verdict_evidence"]
    evaluated(registry, 0.7)
    with pytest.raises(FailedPrecondition) as caught:
        server.client.promote(registry["b"])
    assert caught.value.metadata["failed_verdicts"] == "trades,better"
    assert caught.value.metadata["verdict_better"] == (
        "P(better than the champion) of 0.700 after 1 look(s) at these bars, and 0.9 is asked for"
    )
    assert caught.value.metadata["verdict_trades"] == "40 trades, and 50 is asked for"
    assert server.serving("BTCUSDT") == registry["a"]
    with pytest.raises(InvalidArgument, match="reason"):
        server.client.promote(registry["b"], force=True)
    assert server.client.promote(registry["b"], force=True, reason="the desk insists").served
    event = next(iter(server.client.events(limit=1)))
    assert (event.forced, event.reason) == (True, "the desk insists")
    assert event.evidence["decisions"][0]["overridden_verdicts"] == ["trades", "better"]


def test_a_promote_with_good_evidence_passes(registry: Registry, serve: Callable[..., Server]) -> None:
    server = serve(registry.base)
    evaluated(registry, 0.97)
    assert server.client.promote(registry["b"], expected_production_model_id=registry["a"]).served
    event = next(iter(server.client.events(limit=1)))
    assert not event.forced
    assert event.evidence["decisions"][0]["failed_verdicts"] == []


def test_evidence_without_the_servers_costs_is_refused(
    registry: Registry, serve: Callable[..., Server]
) -> None:
    server = serve(registry.base)
    evaluated(registry, 0.97, fee_bps=0.0)
    with pytest.raises(FailedPrecondition) as caught:
        server.client.promote(registry["b"])
    assert caught.value.metadata["failed_verdicts"] == "same_settings"
    assert "fee_bps 0.0, now 5.0" in caught.value.metadata["verdict_same_settings"]


def test_a_refused_basket_of_many_keys_still_reaches_the_client_with_its_reason(
    registry: Registry, serve: Callable[..., Server], tmp_path: Path
) -> None:
    template = sealed_template(tmp_path / "template")
    ids = [f"{number:02d}_{'X' * 40}_15m_logreg_20260101_000000" for number in range(60)]
    for model_id in ids:
        register_copy(template, registry.base, model_id, model_id.partition("_15m")[0])
    digests = open_store(registry.base).view().state.digests
    for model_id in ids:
        # old, on a recipe, by other settings, in sample, of few bars and trades, with a loss
        challenger = Measured(model_id, digests[model_id], "2026-02-15T00:00:00+00:00", -0.5, -2.0, 0.6, 3)
        evidence = Evidence(
            challenger=challenger,
            champion=Measured("another", "0" * 64, "2026-02-15T00:00:00+00:00", 0.1, 1.5, 0.1, 40),
            evaluated_at="2026-03-01T00:00:00+00:00",
            window_start="2026-02-01T00:00:00+00:00",
            window_end="2026-02-02T00:00:00+00:00",
            bars=96,
            probability_better=0.1,
            kind="recipe",
        )
        registry_at(registry.base).record_evaluation(*recorded(evidence))
    server = serve(registry.base)
    with pytest.raises(FailedPrecondition) as caught:
        server.client.promote(ids)
    assert caught.value.reason == "GATE_REFUSED"
    failed = caught.value.metadata["failed_verdicts"].split(",")
    assert {"fresh", "artefact", "same_champion", "bars", "better"} <= set(failed)
    assert all(f"verdict_{name}" in caught.value.metadata for name in failed)
