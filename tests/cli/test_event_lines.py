"""What `signalserve events` says of an evaluation, also of one that an older version wrote."""

from __future__ import annotations

from typing import Any

import pytest

from signalserve.cli.lifecycle import _changes
from signalserve.client import AuditEvent


def event(evidence: dict[str, Any]) -> AuditEvent:
    return AuditEvent(
        revision=1,
        time=None,
        actor="",
        via="cli",
        action="evaluate",
        request_id="",
        reason="",
        forced=False,
        changes=(),
        evidence={"challenger": "m", **evidence},
        hash="",
    )


@pytest.mark.parametrize("name", ["failed_verdicts", "failed_rules"])
def test_a_refused_evaluation_is_said_to_be_refused_by_whatever_name_the_log_has(name: str) -> None:
    assert _changes(event({name: ["trades", "better"]})) == "m (refused by trades, better)"
    assert _changes(event({name: []})) == "m (passed)"


def test_an_evaluation_that_a_refit_carries_names_the_model_that_was_measured() -> None:
    carried = {"failed_verdicts": ["artefact"], "evidence": {"recipe_of": {"model_id": "measured"}}}
    assert _changes(event(carried)) == (
        "m (refused by artefact, on the evidence of measured, whose refit it is)"
    )
    assert _changes(event({"failed_verdicts": [], "evidence": {"recipe_of": None}})) == "m (passed)"
