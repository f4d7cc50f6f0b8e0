"""A key's past is told by the log: who was in production when, every decision, what is gone since, and the grids."""

from __future__ import annotations

import shutil
from pathlib import Path

from signalserve.lab.app import lab_of
from signalserve.registry import Promotion, Selection
from tests.lab.conftest import OpenLab, Workshop, lab_settings
from tests.registries import registry_at
from tests.small_models import register_copy

HISTORY = "/api/ml/history"


def test_bands_and_marks_follow_promotes_a_rollback_and_an_archive(
    base: Path, tmp_path: Path, open_lab: OpenLab
) -> None:
    registry = registry_at(base)
    registry.promote([Promotion("btc1")], reason="better")
    registry.rollback([("BTCUSDT", "15m")], reason="it was not")
    registry.promote([Promotion("btc0")], request_id="asked again")  # decides nothing
    registry.archive(["btc0"], allow_unserved=True, reason="neither was this")
    found = open_lab(lab_settings(tmp_path)).json(HISTORY, symbol="BTCUSDT", timeframe="15m")
    assert [(mark["kind"], mark["model_id"], mark["reason"]) for mark in found["marks"]] == [
        ("promote", "btc0", ""),
        ("promote", "btc1", "better"),
        ("rollback", "btc0", "it was not"),
        ("archive", "btc0", "neither was this"),
    ]
    assert [mark["previous_model_id"] for mark in found["marks"]] == ["", "btc0", "btc1", ""]
    bands = found["bands"]
    assert [band["model_id"] for band in bands] == ["btc0", "btc1", "btc0"]
    assert [band["end"] for band in bands[:2]] == [band["start"] for band in bands[1:]]
    assert bands[2]["end"] == found["marks"][3]["time"]
    assert found["production"] == ""
    assert [(model["model_id"], model["quarantined"]) for model in found["models"]] == [
        ("btc0", False),
        ("btc1", True),
    ]


def test_a_refusal_is_a_mark_and_the_grid_is_there_by_rank(workshop: Workshop, open_lab: OpenLab) -> None:
    lab = open_lab(workshop.settings())
    found = lab.json(HISTORY, symbol="SYNTH", timeframe="15m")
    evaluation = lab.json(f"/api/ml/models/{workshop.challenger}")["evaluation"]
    refusals = [mark for mark in found["marks"] if mark["kind"] == "refusal"]
    assert len(refusals) == int(not evaluation["passed"])
    for mark in refusals:
        assert mark["failed"] == [rule["name"] for rule in evaluation["rules"] if not rule["passed"]]
    (grid,) = found["grids"]
    assert grid["parameters"] == ["max_depth", "min_samples_leaf", "n_estimators"]
    assert "sharpe" in grid["metrics"]
    assert [row["rank"] for row in grid["rows"]] == [1, 2]
    assert {row["params"]["max_depth"] for row in grid["rows"]} == {2.0, 4.0}
    assert found["bands"][-1]["end"] is None
    assert found["models"][1]["metrics"]["auc"] is not None


def test_grids_of_a_key_whose_name_begins_alike_are_anothers(base: Path, tmp_path: Path) -> None:
    for name in ("BTCUSDT_15m_20260101_000000", "BTCUSDT_15m_X_15m_20260101_000000", "BTCUSDT_15m_old"):
        (base / f"rf_grid_results_{name}.csv").write_text("model_type,depth,sharpe\nrf,3,1.0\n")
    (base / "rf_grid_results_BTCUSDT_15m_20260102_000000_2.csv").write_bytes(b"\xff\x00,\n")
    found = lab_of(lab_settings(tmp_path)).histories.of("BTCUSDT", "15m")
    assert found is not None
    assert [grid.file for grid in found.grids] == [
        "rf_grid_results_BTCUSDT_15m_20260102_000000_2.csv",
        "rf_grid_results_BTCUSDT_15m_20260101_000000.csv",
    ]
    assert found.grids[1].rows[0].params == {"depth": 3.0}


def test_what_was_deleted_since_is_still_in_the_history(
    base: Path, tmp_path: Path, templates: list[Path], open_lab: OpenLab
) -> None:
    register_copy(templates[0], base, "late", created_at="2026-03-01T00:00:00+00:00", max_models=2)
    registry = registry_at(base)
    shutil.rmtree(base / "btc1", ignore_errors=True)
    registry.clean(Selection())
    found = open_lab(lab_settings(tmp_path)).json(HISTORY, symbol="BTCUSDT", timeframe="15m")
    states = {model["model_id"]: model["status"] for model in found["models"]}
    assert states == {"btc0": "production", "btc1": "deleted", "late": "success"}


def test_a_production_set_by_hand_before_any_log_has_a_band_without_a_start(
    tmp_path: Path, open_lab: OpenLab
) -> None:
    base = tmp_path / "ml_models"
    base.mkdir()
    (base / "registry_index.csv").write_text(
        "model_id,symbol,timeframe,model_type,created_at,path,cum_return,sharpe,status\n"
        "old,BTCUSDT,15m,rf,2026-01-01T00:00:00Z,,,,production\n"
    )
    lab = open_lab(lab_settings(tmp_path))
    (band,) = lab.json(HISTORY, symbol="BTCUSDT", timeframe="15m")["bands"]
    assert (band["model_id"], band["start"], band["end"]) == ("old", None, None)
    assert lab.json("/api/ml/keys") == {"keys": [{"symbol": "BTCUSDT", "timeframe": "15m"}]}
    unknown = lab.get(HISTORY, params={"symbol": "NOBODY", "timeframe": "15m"})
    assert (unknown.status_code, unknown.json()["reason"]) == (404, "UNKNOWN_KEY")
