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
