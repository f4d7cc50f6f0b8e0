"""One command trains, evaluates, backtests and tries to promote two real markets, and its reports are right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from signalserve.cli.main import app
from signalserve.features.bars import read_bars
from signalserve.registry import init_registry, list_models, verify_log
from signalserve.registry.events import EventLog
from tests.training.recompute import check_report

DATA = Path(__file__).resolve().parents[3] / "shared/data/ohlcv"
SYMBOLS = ("BCHUSDT", "BTCUSDT")


@pytest.mark.skipif(not (DATA / "BTCUSDT_15m.csv").is_file(), reason="no real bars beside the repository")
def test_one_command_trains_evaluates_backtests_and_tries_to_promote_two_real_markets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGNALSERVE__PROMOTION__GATE", "evidence")
    config = {
        "data": {"ohlcv_path": str(DATA / "{symbol}_{timeframe}.csv")},
        "ml": {
            "models_dir": str(tmp_path / "registry"),
            "models": {"rf": {"n_estimators": 40, "max_depth": 5, "min_samples_leaf": 50}},
        },
        "backtest": {"output_dir": str(tmp_path / "backtests")},
        "promotion": {"resamples": 300},
        "retrain": {
            "output_dir": str(tmp_path / "retrain"),
            "policies": [{"name": "weekly", "symbols": ["B*USDT"], "auto_promote": True}],
        },
    }
    path = tmp_path / "system.yml"
    path.write_text(yaml.safe_dump(config))
    init_registry(tmp_path / "registry")
    done = CliRunner().invoke(app, ["retrain", "--once", "-c", str(path)])
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in (tmp_path / "retrain" / "runs.jsonl").read_text().splitlines()]
    assert sorted(line["symbol"] for line in lines) == list(SYMBOLS)
    for line in lines:
        folder = Path(line["report"])
        summary = json.loads((folder / "metrics.json").read_text())
        assert (summary["model_id"], summary["in_sample"]) == (line["model_id"], False)
        frame = read_bars(DATA / f"{line['symbol']}_15m.csv").frame
        check_report(folder, summary, frame["close"].loc[summary["span"]["start"] : summary["span"]["end"]])
        assert line["status"] in ("promoted", "candidate", "refused")
        assert line["symbol"] in done.output
    events = EventLog(tmp_path / "registry" / "registry_events.jsonl").read_new().events
    assert [event.action for event in events].count("evaluate") == 2
    statuses = {entry.symbol: entry.status for entry in list_models(tmp_path / "registry")}
    assert statuses == {
        line["symbol"]: "production" if line["status"] == "promoted" else "success" for line in lines
    }
    assert verify_log(tmp_path / "registry").ok
