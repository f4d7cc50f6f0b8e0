"""Two to four models on the same bars, with the gate's word and the bootstrap's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from signalserve.judging import probability_better, timing
from signalserve.registry import Promotion
from tests.lab.conftest import OpenLab, Workshop, lab_settings
from tests.registries import registry_at

COMPARE = "/api/ml/compare"
BOUNDS = {"max_data_age": None, "min_bars": 100, "min_trades": 1, "resamples": 200}


def backtest_of(workshop: Workshop, model_id: str) -> Path:
    (folder,) = (workshop.folder / "backtests").glob(f"{model_id}_*")
    return folder / "equity.csv"


def equity_of(workshop: Workshop, model_id: str) -> pd.Series:
    return pd.read_csv(backtest_of(workshop, model_id), index_col="timestamp", parse_dates=True)["equity"]


def test_equity_is_overlaid_and_resampled_on_the_bars_that_both_have(
    workshop: Workshop, open_lab: OpenLab
) -> None:
    lab = open_lab(workshop.settings(promotion=BOUNDS))
    pair = [workshop.challenger, workshop.champion]
    found = lab.json(COMPARE, model_id=pair, max_points=20_000)
    curves = [equity_of(workshop, model_id) for model_id in pair]
    common = curves[0].index.intersection(curves[1].index)
    overlay = found["overlay"]
    assert (overlay["bars"], overlay["thinned"], overlay["in_sample"]) == (len(common), False, False)
    returns = [curve / curve.shift(1).fillna(10_000.0) - 1.0 for curve in curves]
    for curve, own in zip(overlay["equity"], returns, strict=True):
        assert curve == pytest.approx((1.0 + own.loc[common]).cumprod().tolist())
    difference = (returns[0].loc[common] - returns[1].loc[common]).to_numpy()
    expected = probability_better(difference, resamples=200)
    (drawn,) = found["distributions"]
    assert (drawn["challenger"], drawn["champion"]) == tuple(pair)
    assert drawn["probability"] == expected.probability
    assert (drawn["observed"], drawn["low"], drawn["high"]) == pytest.approx(
        (expected.mean, expected.low, expected.high)
    )
    assert sum(drawn["counts"]) == 200
    assert len(drawn["edges"]) == len(drawn["counts"]) + 1
    assert np.all(np.diff(drawn["edges"]) > 0)


def test_each_models_positions_are_held_against_their_copies_on_the_bars_that_all_have(
    workshop: Workshop, open_lab: OpenLab
) -> None:
    lab = open_lab(workshop.settings(promotion=BOUNDS))
    pair = [workshop.challenger, workshop.champion]
    bars = [
        pd.read_csv(backtest_of(workshop, model_id), index_col="timestamp", parse_dates=True)
        for model_id in pair
    ]
    common = bars[0].index.intersection(bars[1].index)
    found = lab.json(COMPARE, model_id=pair)["timings"]
    assert [item["model_id"] for item in found] == pair
    for item, frame in zip(found, bars, strict=True):
        close = frame.loc[common, "close"]
        before = close.shift(1).fillna(close.iloc[0])
        position = frame.loc[common, "position"].to_numpy(float)
        expected = timing(position, before.to_numpy(), close.to_numpy())
        assert item["probability"] == expected.probability
        assert item["observed"] == pytest.approx((position * (close / before - 1.0)).mean())
        assert (item["low"], item["high"]) == pytest.approx((expected.low, expected.high))
        assert (item["bars"], sum(item["counts"])) == (len(common), len(common) - 1)
    # each model's are its own, whatever it stands beside
    turned = lab.json(COMPARE, model_id=pair[::-1])["timings"]
    assert turned == found[::-1]


def test_a_position_that_never_changes_has_no_timing_and_one_without_a_close_says_so(
    workshop: Workshop, tmp_path: Path, open_lab: OpenLab
) -> None:
    copy = workshop.copied_to(tmp_path / "copy")
    lab = open_lab(copy.settings(promotion=BOUNDS))
    pair = [copy.challenger, copy.champion]
    file = backtest_of(copy, copy.challenger)
    frame = pd.read_csv(file, index_col="timestamp")
    frame.assign(position=1).to_csv(file)
    held = lab.json(COMPARE, model_id=pair)["timings"][0]
    assert held["probability"] == pytest.approx(0.5, abs=0.01)
    assert held["edges"][0] == pytest.approx(held["observed"] - 1e-6)
    frame.iloc[-1, frame.columns.get_loc("close")] = np.nan
    frame.to_csv(file)
    found = lab.json(COMPARE, model_id=pair)
    assert [item["model_id"] for item in found["timings"]] == [copy.champion]
    assert any(f"without a close in the backtest of {copy.challenger}" in text for text in found["warnings"])


def test_the_gates_word_is_the_registrys_own_and_says_what_it_is_about(
    workshop: Workshop, tmp_path: Path, open_lab: OpenLab
) -> None:
    copy = workshop.copied_to(tmp_path / "copy")
    lab = open_lab(copy.settings(promotion=BOUNDS | {"resamples": 2_000}))
    found = lab.json(COMPARE, model_id=[copy.challenger, copy.champion])
    (pair,) = found["pairs"]
    assert (pair["state"], found["judgement"]["state"]) == ("current", "current")
    assert pair["probability_better"] == found["judgement"]["evidence"]["probability_better"]
    # the other way round there is nothing to judge
    turned = lab.json(COMPARE, model_id=[copy.champion, copy.challenger])
    assert (turned["judgement"]["state"], turned["pairs"][0]["state"]) == ("in_production", "absent")
    # another champion: the evidence is about a comparison that nobody asks for any more
    registry_at(copy.folder / "ml_models").archive([copy.champion], allow_unserved=True, reason="gone")
    stale = lab.json(COMPARE, model_id=[copy.challenger, copy.champion])
    assert (stale["pairs"][0]["state"], stale["judgement"]["allowed"]) == ("stale", False)
    assert "same_champion" in stale["judgement"]["text"]


def test_only_what_differs_is_listed(workshop: Workshop, open_lab: OpenLab) -> None:
    found = open_lab(workshop.settings(promotion=BOUNDS)).json(
        COMPARE, model_id=[workshop.challenger, workshop.champion]
    )
    differences = {item["name"]: item["values"] for item in found["differences"]}
    assert differences["model_type"] == ["rf", "logreg"]
    assert differences["model_params.C"] == [None, 0.1]
    assert "label_config.horizon_bars" not in differences
    assert all(values[0] != values[1] for values in differences.values())
    assert found["features"] == {"common": 40, "own": [[], []]}


def test_models_without_backtests_are_compared_all_the_same_and_it_says_why_not_more(
    base: Path, tmp_path: Path, open_lab: OpenLab
) -> None:
    registry_at(base).promote([Promotion("eth2")])
    lab = open_lab(lab_settings(tmp_path))
    found = lab.json(COMPARE, model_id=["btc1", "btc0", "eth2"])
    assert "no backtest of btc1, btc0, eth2" in found["overlay"]["problem"]
    assert (found["distributions"], [pair["state"] for pair in found["pairs"]]) == ([], ["absent", "absent"])
    assert any("different keys" in warning for warning in found["warnings"])


@pytest.mark.parametrize(
    ("ids", "status"),
    [
        (["btc0"], 422),
        (["btc0", "btc0"], 400),
        (["btc0", "nobody"], 404),
        (["btc0", "btc1", "eth2", "a", "b"], 422),
    ],
)
def test_other_than_two_to_four_different_models_are_refused(
    base: Path, tmp_path: Path, open_lab: OpenLab, ids: list[str], status: int
) -> None:
    answer = open_lab(lab_settings(tmp_path)).get(COMPARE, params={"model_id": ids})
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
