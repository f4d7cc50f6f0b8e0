"""The soak's ledger finds what must not happen: it would be worth nothing if it let a wrong answer pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.soak.ledger import CANCELLED, Count, Ledger
from signalserve.client import Cancelled, Prediction, Unavailable
from signalserve.registry.events import Event, StatusChange

EXPECTED = {"old": np.array([0.1, 0.2]), "new": np.array([0.6, 0.7])}


def promoted(revision: int, model_id: str) -> Event:
    change = StatusChange("X", "15m", model_id, "success", "production")
    return Event(revision, "", "", "", "promote", changes=(change,))


# old in production by revision 1, new by revision 3
EVENTS = [promoted(1, "old"), Event(2, "", "", "", "register"), promoted(3, "new")]


def answer(model_id: str, revision: int, score: float, *flags: str) -> Prediction:
    scores = np.array([score])
    return Prediction(scores, model_id, "", revision, "", None, flags, 0, 1.0)


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(EXPECTED)


@pytest.mark.parametrize(
    "good",
    [
        answer("old", 1, 0.2),
        answer("old", 2, 0.2),
        answer("new", 3, 0.7),
        answer("old", 3, 0.2, "NOT_CURRENT"),
    ],
)
def test_what_may_be_answered_is_not_complained_of(ledger: Ledger, good: Prediction) -> None:
    ledger.answered("one", "X", [1], good, floor=good.registry_revision)
    ledger.read(EVENTS)
    assert ledger.findings == []
    assert ledger.count() == Count(asked=1)


@pytest.mark.parametrize(
    ("bad", "more"),
    [
        (answer("old", 1, 0.7), {}),  # another model's score
        (answer("old", 1, 0.1), {}),  # another row's
        (answer("other", 1, 0.2), {}),
        (answer("new", 2, 0.7), {}),  # not yet in production
        (answer("old", 3, 0.2), {}),  # no longer, and not flagged
        (answer("new", 1, 0.7, "NOT_CURRENT"), {}),  # flagged, and of later
        (answer("old", 1, 0.2), {"floor": 2}),  # every worker had served 2
        (answer("old", 1, 0.2), {"named": "new"}),
    ],
)
def test_each_way_of_being_wrong_is_found(ledger: Ledger, bad: Prediction, more: dict[str, Any]) -> None:
    ledger.answered("one", "X", [1], bad, **({"floor": 0} | more))
    ledger.read(EVENTS)
    assert len(ledger.findings) == 1
    assert ledger.count() == Count(asked=1, wrong=1)


def test_an_answer_by_a_revision_that_was_not_read_yet_is_looked_up_later(ledger: Ledger) -> None:
    ledger.answered("one", "X", [1], answer("old", 3, 0.2), floor=0)
    ledger.read(EVENTS[:2])
    assert ledger.findings == []
    ledger.read(EVENTS)
    assert len(ledger.findings) == 1


def test_a_failure_is_a_loss_unless_the_fault_excuses_it(ledger: Ledger) -> None:
    ledger.failed("batch", ["X", "Y"], Unavailable("gone"))
    ledger.excuse = lambda named, error: CANCELLED if isinstance(error, Cancelled) else ""
    ledger.failed("one", ["X"], Cancelled("by a drain"))
    assert ledger.count() == Count(asked=3, failed=2, cancelled=1)
    assert len(ledger.findings) == 1
