"""`signalserve train` and scripts/run_ml_train_15m.py: what is printed, and which exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from signalserve.cli import train as train_command
from signalserve.registry import list_models, load_registry

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    app.command("train")(train_command.train)
    app.command("other")(lambda: None)  # with a single command typer would drop the command's name
    return app


def arguments(config: Path, bars: Path, base: Path, *more: str) -> list[str]:
    given = ["--symbol", "SYNTH", "--config", config, "--ohlcv", bars, "--output-dir", base]
    return ["train", *map(str, given), *more]


def test_a_run_prints_its_metrics_and_where_things_landed(
    app: typer.Typer, config_file: Path, bar_file: Path, tmp_path: Path
) -> None:
    base = tmp_path / "models"
    answer = CliRunner().invoke(app, arguments(config_file, bar_file, base))
    assert answer.exit_code == 0, answer.output
    [entry] = list_models(base)
    for text in (
        "cum_return",
        "sharpe",
        "auc",
        entry.model_id,
        str(base / entry.model_id),
        "signalserve evaluate",
        "walk-forward",
    ):
        assert text in answer.stdout
    assert answer.stderr == ""


def test_json_is_one_object_with_the_choices_of_the_command_line(
    app: typer.Typer, config_file: Path, bar_file: Path, tmp_path: Path
) -> None:
    base = tmp_path / "models"
    more = ["--json", "--model-type", "LogReg", "--preset", "extended", "--seed", "4", "--timeframe", "15m"]
    answer = CliRunner().invoke(app, arguments(config_file, bar_file, base, *more))
    assert answer.exit_code == 0, answer.output
    result = json.loads(answer.stdout)
    assert result["status"] == "success"
    assert result["model_id"].startswith("SYNTH_15m_logreg_")
    meta = json.loads((Path(result["path"]) / "meta.json").read_text(encoding="utf-8"))
    assert (meta["feature_preset"], meta["random_state"]) == ("extended", 4)
    assert result["metrics"] == meta["metrics"]


def test_a_failed_run_exits_1_with_one_line_and_names_its_entry(
    app: typer.Typer, config_file: Path, tmp_path: Path
) -> None:
    base = tmp_path / "models"
    (tmp_path / "broken.csv").write_text("timestamp,open\n")
    answer = CliRunner().invoke(app, arguments(config_file, tmp_path / "broken.csv", base))
    assert answer.exit_code == 1
    [entry] = load_registry(base)
    assert entry.status == "failed"
    assert answer.stderr.count("\n") == 1
    assert "column" in answer.stderr
    assert entry.model_id in answer.stderr
    assert answer.stdout == ""


@pytest.mark.parametrize(
    "more",
    [
        ["--preset", "all"],
        ["--model-type", "svm"],
        ["--timeframe", "soon"],
        ["--seed", "-1"],
        ["--label-method", "meta"],
        ["--horizon-bars", "0"],
        ["--up-threshold", "-0.01"],
        ["--volatility-bars", "20"],
    ],
)
def test_a_request_that_cannot_be_run_exits_2(
    app: typer.Typer, config_file: Path, bar_file: Path, tmp_path: Path, more: list[str]
) -> None:
    answer = CliRunner().invoke(app, arguments(config_file, bar_file, tmp_path / "models", *more))
    assert answer.exit_code == 2
    assert answer.stderr.startswith("error: ")
    assert not (tmp_path / "models").exists()


def run_script(*given: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    script = str(ROOT / "scripts" / "run_ml_train_15m.py")
    return subprocess.run(
        [sys.executable, script, *given], capture_output=True, text=True, check=False, cwd=cwd
    )


def test_the_script_trains_under_its_old_name_and_to_the_same_bytes_as_any_other_process(
    app: typer.Typer, config_file: Path, bar_file: Path, tmp_path: Path
) -> None:
    base = tmp_path / "models"
    more = ["--model-type", "logreg", "--json", "--feature-preset", "core"]
    more += ["--horizon-bars", "6", "--up-threshold", "0.0015", "--down-threshold", "-0.0015"]
    given = arguments(config_file, bar_file, base, *more)[1:]
    done = run_script(*given, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    script = json.loads(done.stdout)
    assert [entry.model_id for entry in list_models(base)] == [script["model_id"]]
    here = json.loads(CliRunner().invoke(app, arguments(config_file, bar_file, base, *more)).stdout)
    assert here["metrics"] == script["metrics"]
    meta = json.loads((Path(script["path"]) / "meta.json").read_text(encoding="utf-8"))
    wanted = {"horizon_bars": 6, "up_threshold": 0.0015, "down_threshold": -0.0015}
    assert wanted.items() <= meta["label_config"].items()
    models = [(Path(run["path"]) / "model.onnx").read_bytes() for run in (script, here)]
    assert models[0] == models[1]


def test_a_configuration_that_cannot_be_used_exits_2_with_the_keys_path(
    bar_file: Path, tmp_path: Path
) -> None:
    config = tmp_path / "system.yml"
    config.write_text("ml: {label: {horizon: 4}}", encoding="utf-8")
    done = run_script(*arguments(config, bar_file, tmp_path / "models")[1:], cwd=tmp_path)
    assert done.returncode == 2
    assert "ml.label.horizon: unknown key" in done.stderr
    assert done.stdout == ""


def test_spans_of_the_command_line_are_times_in_utc(
    app: typer.Typer, config_file: Path, bar_file: Path, tmp_path: Path
) -> None:
    spans = ["--train-start", "2024-01-05 00:00:00+00:00", "--train-end", "2024-01-15T12:00:00+02:00"]
    spans += ["--test-start", "2024-01-16 06:00", "--test-end", "2024-01-20", "--model-type", "logreg"]
    answer = CliRunner().invoke(app, arguments(config_file, bar_file, tmp_path / "models", "--json", *spans))
    assert answer.exit_code == 0, answer.output
    result = json.loads(answer.stdout)
    assert result["train_end"] <= "2024-01-15T10:00:00+00:00"
    assert result["test_start"] == "2024-01-16T06:00:00+00:00"
    assert result["test_end"] == "2024-01-20T00:00:00+00:00"


@pytest.mark.parametrize(
    "more",
    [
        ["--train-end", "soon"],
        ["--lookback-days", "-2"],
        ["--lookback-days", "3", "--test-end", "2024-01-09"],
    ],
)
def test_spans_that_cannot_be_used_exit_2(
    app: typer.Typer, config_file: Path, bar_file: Path, tmp_path: Path, more: list[str]
) -> None:
    answer = CliRunner().invoke(app, arguments(config_file, bar_file, tmp_path / "models", *more))
    assert answer.exit_code == 2
    assert not (tmp_path / "models").exists()


def test_a_grid_says_how_many_it_tried_and_where_they_are(
    app: typer.Typer, config_file: Path, bar_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGNALSERVE__ML__GRID_JOBS", "1")
    base = tmp_path / "models"
    answer = CliRunner().invoke(
        app, arguments(config_file, bar_file, base, "--grid", "--model-type", "logreg")
    )
    assert answer.exit_code == 0, answer.output
    [table] = base.glob("rf_grid_results_SYNTH_15m_*.csv")
    assert f"3 parameter sets, the best by sharpe; see {table.resolve()}" in answer.stdout
