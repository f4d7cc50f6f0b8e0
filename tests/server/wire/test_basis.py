"""A server decides by its own configuration whose evidence counts, and says what each model was let in on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import pytest

from signalserve.client import FailedPrecondition
from signalserve.config.evidence import PromotionSettings
from signalserve.config.settings import Settings
from signalserve.trading.rules import TradingRules
from tests.judging.test_basis import evidence
from tests.registries import recorded, registry_at
from tests.server.wire.conftest import Registry, Server


def test_evidence_that_a_folder_took_is_refused_by_a_server_that_accepts_other_hands(
    registry: Registry, serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGNALSERVE__PROMOTION__GATE", "evidence")
    trading = TradingRules.of(Settings().trading)
    rules = trading.used_for(["probability"])
    brought = evidence(registry.base, registry["b"], measured_by="brought", rules=rules)
    mine = registry_at(registry.base, PromotionSettings(), asdict(trading))
    assert mine.record_evaluation(*recorded(brought)).allowed
    server = serve(registry.base, promotion={"accept": ["trainer", "evaluate"]})
    with pytest.raises(FailedPrecondition) as caught:
        server.client.promote(registry["b"])
    assert caught.value.metadata["failed_verdicts"] == "measured_by"
    assert (
        "its evidence is of brought, and promotion.accept has trainer, evaluate"
        in (caught.value.metadata["verdict_measured_by"])
    )
    found = {item.model_id: item.basis for item in server.client.list_models("BTCUSDT")}
    candidate = found[registry["b"]]
    assert (candidate.gate, candidate.fee_bps, candidate.measured_by) == ("evidence", 5.0, "brought")
    assert (found[registry["a"]].gate, found[registry["c"]]) == ("none", None)
    assert server.client.promote(registry["b"], force=True, reason="the desk insists").served
    (served,) = [item for item in server.client.status().models if item.symbol == "BTCUSDT"]
    assert (served.basis.gate, served.basis.training_span) == ("forced", "declared")
    assert served.basis.text.startswith("let in by force, measured by bars that were brought at 5 + ")
