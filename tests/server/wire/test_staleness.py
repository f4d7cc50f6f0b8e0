"""A model that is older than `ml.max_model_age` says so in each answer, or is refused."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import pytest
from typer.testing import CliRunner

from signalserve.cli.main import app
from signalserve.client import FailedPrecondition
from tests.server.wire.conftest import NAMES, Registry, Server

# the models of these tests were made on 2026-01-01
MADE = datetime(2026, 1, 1, tzinfo=UTC)


def age() -> float:
    return (datetime.now(UTC) - MADE).total_seconds()


def test_an_old_model_is_served_with_a_flag_and_the_status_says_since_when(
    registry: Registry, serve: Callable[..., Server], row: np.ndarray
) -> None:
    server = serve(registry.base, ml={"max_model_age": "1d"})
    answer = server.client.predict("BTCUSDT", "15m", row, feature_names=NAMES)
    assert answer.flags == ("STALE_MODEL",)
    model = server.client.status().models[0]
    assert model.stale
    assert model.stale_time == datetime(2026, 1, 2, tzinfo=UTC)


def test_a_young_model_has_no_flag(registry: Registry, serve: Callable[..., Server], row: np.ndarray) -> None:
    server = serve(registry.base, ml={"max_model_age": age() + 86_400})
    assert server.client.predict("BTCUSDT", "15m", row, feature_names=NAMES).flags == ()
    assert not server.client.status().models[0].stale


def test_the_policy_refuse_gives_no_score_but_to_who_names_the_model(
    registry: Registry, serve: Callable[..., Server], row: np.ndarray
) -> None:
    server = serve(registry.base, ml={"max_model_age": "1d", "stale_models": "refuse"})
    with pytest.raises(FailedPrecondition, match="train and promote a newer one") as caught:
        server.client.predict("BTCUSDT", "15m", row, feature_names=NAMES)
    assert caught.value.reason == "MODEL_STALE"
    named = server.client.predict("BTCUSDT", "15m", row, registry["a"], feature_names=NAMES)
    assert named.flags == ("STALE_MODEL",)


def test_the_status_command_warns(registry: Registry, serve: Callable[..., Server]) -> None:
    server = serve(registry.base, ml={"max_model_age": "1d"})
    done = CliRunner().invoke(app, ["status", "--target", server.target])
    assert done.exit_code == 0
    assert f"{registry['a']} is older than ml.max_model_age since 2026-01-02 00:00Z" in done.stderr
