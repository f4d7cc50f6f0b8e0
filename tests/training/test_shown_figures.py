"""What train, evaluate and backtest show of a figure: which bars it is of, how sure it is, and whether to believe it.

The market is open 6.5 hours on weekdays, and so easy to foretell that nobody should believe it.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner, Result

from signalserve.cli.main import app
from signalserve.features.synthetic import synthetic_bars
from tests.training.conftest import CONFIG

BARS_PER_YEAR = 26 * 5 * 365 / 7
DOUBT = "(implausible: look for leakage)"


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a configuration and a bar file, whose price goes up and down by a clock."""
    folder = tmp_path_factory.mktemp("market")
    days = pd.bdate_range("2024-01-02", periods=100, tz="UTC")
    opened = [day + pd.Timedelta(minutes=870 + 15 * place) for day in days for place in range(26)]
    frame = synthetic_bars("SYNTH", len(opened), seed=11)
    wave = 100.0 * np.exp(0.03 * np.sin(np.arange(len(opened)) / 8.0))
    frame[["open", "high", "low", "close"]] = (
        frame[["open", "high", "low", "close"]].div(frame["close"], axis=0).mul(wave, axis=0)
    )
    frame.index = pd.DatetimeIndex(opened, name="timestamp")
    frame.to_csv(folder / "SYNTH_15m.csv")
    config = {
        **CONFIG,
        "data": {"ohlcv_path": str(folder / "{symbol}_{timeframe}.csv")},
        "ml": {**CONFIG["ml"], "model_type": "logreg", "models_dir": str(folder / "registry"), "grid_jobs": 1,
               "grids": {"logreg": {"C": [0.001, 10.0]}}},
        "backtest": {"output_dir": str(folder / "backtests")},
    }  # fmt: skip
    (folder / "system.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return folder


def run(market: Path, *given: str) -> Result:
    return CliRunner().invoke(app, [*given, "-c", str(market / "system.yml")])


@pytest.fixture(scope="module")
def trained(market: Path) -> dict[str, Any]:
    answer = run(market, "train", "--symbol", "SYNTH", "--grid", "--json")
    assert answer.exit_code == 0, answer.output
    return dict(json.loads(answer.stdout))


def row_of(text: str, name: str) -> list[str]:
    """The cells of a table's row."""
    (line,) = (line for line in text.splitlines() if line.startswith(f"{name}  "))
    return re.split(r" {2,}", line.strip())[1:]


def test_a_sharpe_ratio_is_annualised_by_the_hours_that_the_market_keeps(
    market: Path, trained: dict[str, Any]
) -> None:
    folds = trained["walk_forward"]["metrics"]
    assert trained["metrics"]["bars_per_year"] == folds["bars_per_year"] == pytest.approx(BARS_PER_YEAR)
    table = pd.read_csv(market / "registry" / trained["trials"]["file"])
    per_bar = table["sharpe"] / math.sqrt(BARS_PER_YEAR)
    assert trained["trials"]["per_bar_sharpe_variance"] == pytest.approx(per_bar.var(ddof=1))
    for account in (trained["metrics"], folds):
        assert account["probabilistic_sharpe"] == pytest.approx(
            0.5 * (1.0 + math.erf(account["sharpe"] / account["sharpe_se"] / math.sqrt(2.0)))
        )


def test_every_command_names_its_span_its_error_and_its_doubts_beside_the_figures(
    market: Path, trained: dict[str, Any]
) -> None:
    model_id = trained["model_id"]
    train = run(market, "train", "--symbol", "SYNTH")
    evaluate = run(market, "evaluate", model_id)
    backtest = run(market, "backtest", "--symbol", "SYNTH", "--model-id", model_id)
    assert (train.exit_code, backtest.exit_code) == (0, 0), train.output + backtest.output
    for answer in (train, evaluate, backtest):
        text = answer.stdout
        assert re.fullmatch(rf"-?[\d.]+ ± [\d.]+ {re.escape(DOUBT)}", row_of(text, "sharpe")[0]), text
        assert row_of(text, "auc (labelled bars)")[0].endswith(DOUBT)
        assert row_of(text, "last bar")[0] == "2024-05-20 20:45"
        first = pd.Timestamp(row_of(text, "first bar")[0])
        days = (pd.Timestamp("2024-05-20 21:00") - first) / pd.Timedelta("1D")
        assert row_of(text, "days")[0] == f"{days:.1f}"
    for answer in (train, backtest):
        assert row_of(answer.stdout, "auc_all (all bars)")[0] != "-"
        assert "accuracy_all (all bars)" in answer.stdout
    spans = trained["spans"]
    assert row_of(train.stdout, "bars") == [f"{spans[name]['bars']:,}" for name in ("test", "walk_forward")]


def test_the_report_says_the_rules_first_and_then_what_to_doubt_and_what_the_model_looks_at(
    market: Path, trained: dict[str, Any]
) -> None:
    rules = ["--allow-short", "--fee-bps", "3", "--proba-entry", "0.6"]
    answer = run(market, "backtest", "--symbol", "SYNTH", "--model-id", trained["model_id"], *rules, "--json")
    assert answer.exit_code == 0, answer.output
    found = json.loads(answer.stdout)
    assert found["metrics"]["bars_per_year"] == pytest.approx(BARS_PER_YEAR)
    page = (Path(found["folder"]) / "report.html").read_text(encoding="utf-8")
    parts = [
        "long and short",
        "0.6</dd>",
        "3.0 bps",
        "The account",
        "±",
        "look for leakage",
        "Labelled bars",
        "<svg",
    ]
    places = [page.index(text) for text in parts]
    assert places == sorted(places)
    assert f"({found['span']['days']:,.1f} days)" in page
    assert re.search(r"<!-- 2024-0[45]-\d\d -->", page)  # what matplotlib writes beside a text that it draws
    assert "Feature importances" in page
    assert "The model keeps none" not in page
