"""What an answer or a refusal remarks names what it is about."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from signalserve.v1 import prediction_pb2
from tests.server.wire.conftest import NAMES, Registry, Server, refusal, request, training_rows

OUT_OF_RANGE = prediction_pb2.PREDICTION_FLAG_OUT_OF_RANGE
STALE_BAR = prediction_pb2.PREDICTION_FLAG_STALE_BAR
FUTURE_BAR = prediction_pb2.PREDICTION_FLAG_FUTURE_BAR
GOOD = [0.1, 0.2, 0.3, 0.4]


def test_out_of_range_names_its_features_over_all_rows(server: Server) -> None:
    rows = np.array([GOOD, GOOD])
    rows[0, 1], rows[1, 3] = 1e6, -1e6
    answer = server.prediction.Predict(request(rows))
    assert list(answer.flags) == [OUT_OF_RANGE]
    assert list(answer.out_of_range_features) == ["rsi_14", "volume_z"]
    quiet = server.prediction.Predict(request(GOOD))
    assert (list(quiet.flags), list(quiet.out_of_range_features)) == ([], [])


def test_a_rounding_beyond_the_range_is_not_out_of_it_and_a_percent_is(server: Server) -> None:
    rows, _ = training_rows()
    edge = rows.max(axis=0)
    for factor, flags in ((1 + 1e-16, []), (1 + 1e-7, []), (1.01, [OUT_OF_RANGE])):
        assert list(server.prediction.Predict(request(edge * factor)).flags) == flags
    # as float32 has it, where the number is larger by a rounding
    assert list(server.prediction.Predict(request(np.nextafter(np.float32(edge), np.float32(9)))).flags) == []


@pytest.mark.parametrize("factor", [3.0, None])
def test_a_bar_of_the_future_is_called_that_and_an_old_one_stale(
    serve: Callable[..., Server], registry: Registry, factor: float | None
) -> None:
    server = serve(registry.base, server={"stale_bar_factor": factor})
    for bars, flags in ((-10, [STALE_BAR] if factor else []), (0, []), (10, [FUTURE_BAR])):
        message = request(GOOD)
        message.event_time.FromSeconds(int(time.time()) + bars * 900)
        assert list(server.prediction.Predict(message).flags) == flags


CASES: dict[str, tuple[list[str], str]] = {
    "signs": (["return_1", "rsi14", "ATR 14", "volume_z"], "rsi14 for rsi_14, ATR 14 for atr_14"),
    "a slip": (["return_1", "rsi_14", "atr_14", "volum_z"], "volum_z for volume_z"),
    "another period is another name": (["return_1", "rsi_14", "atr_14", "macd"], ""),
}


@pytest.mark.parametrize("case", CASES)
def test_a_missing_feature_that_was_given_by_almost_its_name_is_pointed_out(
    server: Server, case: str
) -> None:
    names, near = CASES[case]
    error = refusal(server.prediction.Predict, request(GOOD, feature_names=names))
    facts: Any = error.metadata
    assert (error.reason, facts.get("near_misses", "")) == ("MISSING_FEATURES", near)
    assert (near in error.message) and (("given are" in error.message) == bool(near))
    assert set(NAMES) - set(names) == set(facts["missing"].split(", "))
