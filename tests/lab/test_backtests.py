"""A model's backtests: found by what they say, shown bar by bar, thinned honestly, tolerant of half a file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from signalserve.lab.backtests import thinned
from tests.lab.conftest import OpenLab, Workshop, lab_settings


def paths(workshop: Workshop) -> tuple[str, Path]:
    listing = f"/api/ml/models/{workshop.challenger}/backtests"
    (folder,) = (workshop.folder / "backtests").glob(f"{workshop.challenger}_*")
    return listing, folder


def test_the_series_are_the_backtests_own(workshop: Workshop, open_lab: OpenLab) -> None:
    listing, folder = paths(workshop)
    lab = open_lab(workshop.settings())
    (summary,) = lab.json(listing)["backtests"]
    assert (summary["name"], summary["in_sample"]) == (folder.name, False)
    found = lab.json(f"{listing}/{folder.name}", max_points=20_000)
    equity = pd.read_csv(folder / "equity.csv", index_col="timestamp", parse_dates=True)
    assert (found["bars"], found["thinned"]) == (len(equity), False)
    assert found["equity"] == equity["equity"].tolist()
    assert found["drawdown"] == equity["drawdown"].tolist()
    assert found["times"][0] == equity.index[0].isoformat().replace("+00:00", "Z")
    start = summary["starting_equity"]
    assert found["buy_hold"][0] == start
    assert found["buy_hold"][-1] == pytest.approx(start * equity["close"].iloc[-1] / equity["close"].iloc[0])
    assert summary["metrics"]["buy_hold_return"] == pytest.approx(found["buy_hold"][-1] / start - 1.0)
    trades = pd.read_csv(folder / "trades.csv")
    assert found["trade_count"] == len(trades) == len(found["trades"])
    assert [trade["pnl"] for trade in found["trades"]] == trades["pnl"].tolist()
    held = sum(
        (pd.Timestamp(item["end"]) - pd.Timestamp(item["start"])) // pd.Timedelta("15min") + 1
        for item in found["holdings"]
    )
    assert held == int((equity["position"] != 0).sum())


def test_a_thinned_series_says_so_and_keeps_the_extremes(workshop: Workshop, open_lab: OpenLab) -> None:
    listing, folder = paths(workshop)
    found = open_lab(workshop.settings()).json(f"{listing}/{folder.name}", max_points=50)
    equity = pd.read_csv(folder / "equity.csv", index_col="timestamp")
    assert found["thinned"] is True
    assert found["bars"] == len(equity)
    assert len(found["times"]) <= 55
    assert min(found["equity"]) == equity["equity"].min()
    assert max(found["equity"]) == equity["equity"].max()
    assert max(found["drawdown"]) == equity["drawdown"].max()
    assert found["equity"][-1] == equity["equity"].iloc[-1]


def test_thinning_survives_gaps() -> None:
    equity = np.full(1_000, np.nan)
    places = thinned(equity, equity, 100)
    assert places.tolist() == [0, 999]
    equity[500:] = 1.0
    assert set(thinned(equity, equity, 100).tolist()) >= {0, 500, 999}


def test_a_backtest_of_its_training_bars_is_marked_and_one_that_says_nothing_too(
    workshop: Workshop, tmp_path: Path, open_lab: OpenLab
) -> None:
    copy = workshop.copied_to(tmp_path / "copy")
    listing, folder = paths(copy)
    summary = json.loads((folder / "metrics.json").read_text())
    del summary["in_sample"]
    (folder / "metrics.json").write_text(json.dumps(summary))
    assert open_lab(copy.settings()).json(listing)["backtests"][0]["in_sample"] is True


def test_half_written_files_are_said_and_fail_nothing(
    workshop: Workshop, tmp_path: Path, open_lab: OpenLab
) -> None:
    copy = workshop.copied_to(tmp_path / "copy")
    listing, folder = paths(copy)
    lab = open_lab(copy.settings())
    content = (folder / "equity.csv").read_text()
    (folder / "equity.csv").write_text(content[: len(content) // 2])
    half = lab.json(f"{listing}/{folder.name}")
    assert 0 < half["bars"] < content.count("\n")
    (folder / "equity.csv").write_text("timestamp,close\n2026-01-01,1\n")
    (folder / "trades.csv").unlink()
    found = lab.json(f"{listing}/{folder.name}")
    assert (found["times"], found["trades"]) == ([], [])
    assert "equity.csv can't be read" in found["problem"] and "trades.csv is missing" in found["problem"]
    (folder / "metrics.json").write_text("{")
    assert lab.json(listing)["backtests"] == []


@pytest.mark.parametrize("name", ["nobody", "..", "%2e%2e%2fml_models", "."])
def test_a_name_that_is_no_backtest_leads_nowhere(workshop: Workshop, open_lab: OpenLab, name: str) -> None:
    listing, _ = paths(workshop)
    answer = open_lab(workshop.settings()).get(f"{listing}/{name}")
    assert answer.status_code in (404, 200)
    if answer.status_code == 200:  # the client has walked up a path of dots by itself
        assert "backtests" in answer.json() or "row" in answer.json()


def test_a_model_without_backtests_has_none(base: Path, tmp_path: Path, open_lab: OpenLab) -> None:
    lab = open_lab(lab_settings(tmp_path))
    assert lab.json("/api/ml/models/btc0/backtests") == {"model_id": "btc0", "backtests": []}
