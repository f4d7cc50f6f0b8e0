"""What will not be served says why wherever it is listed or asked for, and nobody is told to adopt it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from signalserve.client import FailedPrecondition
from tests.cli.test_commands import signalserve, started
from tests.server.wire.conftest import NAMES, Registry, Server, save_model, training_rows

Serve = Callable[..., Server]


def test_three_classes_are_listed_with_the_reason_and_refused_with_it(
    registry: Registry, serve: Serve, row: np.ndarray
) -> None:
    X, y = training_rows()
    never = save_model(registry.base, "BTCUSDT", "three", LogisticRegression().fit(X, y + (X[:, 1] > 1)), X)
    why = "LogisticRegression knows 3 classes; a score needs exactly two"
    server = serve(registry.base)
    listed = next(model for model in server.client.list_models() if model.model_id == never)
    assert (listed.status, listed.engine, listed.engine_reason) == ("success", "legacy", why)
    assert listed.problems == (why,)
    assert server.client.get_model(never).model.problems == (why,)
    for ask in (
        lambda: server.client.predict("BTCUSDT", "15m", row, feature_names=NAMES, model_id=never),
        lambda: server.client.promote(never, force=True, reason="try"),
    ):
        with pytest.raises(FailedPrecondition) as refused:
            ask()
        assert refused.value.reason == "MODEL_NOT_SERVABLE"
        assert why in str(refused.value)
        assert "adopt" not in str(refused.value)
    assert why in " ".join(started("models", "--target", server.target).stderr.split())
    validated = json.loads(signalserve("registry", "validate", "--json", "--registry", str(registry.base)))
    (found,) = [item for item in validated["entries"] if item["model_id"] == never]
    assert (found["valid"], found["warnings"]) == (True, [f"it will not be served: {why}"])


class OfThisProcess(HistGradientBoostingClassifier):
    """A class that a fresh process does not find, once its module has another name."""


def test_a_model_that_a_fresh_process_can_not_open_is_listed_with_the_reason(
    registry: Registry, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = training_rows()
    monkeypatch.setattr(OfThisProcess, "__module__", "__main__")
    monkeypatch.setattr("__main__.OfThisProcess", OfThisProcess, raising=False)
    strange: Any = OfThisProcess(max_iter=3).fit(X, y)
    model_id = save_model(registry.base, "BTCUSDT", "strange", strange, X)
    listed = next(model for model in serve(registry.base).client.list_models() if model.model_id == model_id)
    assert listed.engine == "native"
    assert "OfThisProcess" in listed.problems[0]
    assert "put it into a module that the server can import" in listed.problems[0]


def test_of_a_model_that_can_be_served_nothing_is_said(registry: Registry, serve: Serve) -> None:
    assert all(model.problems == () for model in serve(registry.base).client.list_models())
