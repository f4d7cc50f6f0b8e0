"""`signalserve retrain` and scripts/run_ml_retrain_schedule.py: what is printed, exit codes, and a clean stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import typer
import yaml
from click.testing import Result
from typer.testing import CliRunner

from signalserve.cli import exits
from signalserve.cli import retrain as retrain_command
from signalserve.config.settings import ConfigError
from signalserve.features.synthetic import synthetic_bars
from signalserve.registry import init_registry, load_registry, verify_log
from signalserve.training.retrain import exclusive

ROOT = Path(__file__).resolve().parents[2]
WEEKLY = {"name": "weekly", "symbols": ["*"], "model_type": "logreg"}


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., Path]:
    (tmp_path / "bars").mkdir()
    init_registry(tmp_path / "models")

    def write(*policies: dict[str, Any], **retrain: Any) -> Path:
        path = tmp_path / "system.yml"
        content = {
            "data": {"ohlcv_path": f"{tmp_path}/bars/{{symbol}}_{{timeframe}}.csv"},
            "ml": {
                "models_dir": str(tmp_path / "models"),
                "label": {"up_threshold": 0.001, "down_threshold": -0.001},
                "walk_forward": {"folds": 2},
            },
            "backtest": {"output_dir": str(tmp_path / "backtests")},
            "retrain": {"output_dir": str(tmp_path / "retrain"), "policies": list(policies), **retrain},
        }
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return path

    return write


@pytest.fixture
def bars(tmp_path: Path) -> Callable[[str], Path]:
    def write(symbol: str) -> Path:
        path = tmp_path / "bars" / f"{symbol}_15m.csv"
        synthetic_bars(symbol, 1500, seed=3).to_csv(path)
        return path

    return write


@pytest.fixture
def run() -> Callable[..., Result]:
    app = typer.Typer()
    app.command("retrain")(retrain_command.retrain)
    app.command("other")(lambda: None)  # with a single command typer would drop the command's name

    def invoke(config: Path, *more: str) -> Result:
        return CliRunner().invoke(app, ["retrain", "--config", str(config), *more])

    return invoke


Run = Callable[..., Result]
Write = Callable[..., Path]


def test_once_prints_a_table_and_a_failed_job_makes_exit_code_1(
    config: Write, bars: Write, run: Run, tmp_path: Path
) -> None:
    bars("AAA")
    answer = run(config({**WEEKLY, "symbols": ["AAA", "ABSENT"]}), "--once")
    assert answer.exit_code == 1
    entries = {entry.symbol: entry for entry in load_registry(tmp_path / "models")}
    for text in (
        entries["AAA"].model_id,
        "ABSENT/15m",
        "failed",
        "no such file",
        str(tmp_path / "backtests"),
    ):
        assert text in answer.stdout
    assert len((tmp_path / "retrain" / "runs.jsonl").read_text(encoding="utf-8").splitlines()) == 2
    assert answer.stderr == ""


def test_json_is_an_object_a_line_and_a_refused_promote_is_no_failure(
    config: Write, bars: Write, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGNALSERVE__PROMOTION__GATE", "evidence")
    monkeypatch.setenv("SIGNALSERVE__PROMOTION__MIN_SHARPE", "1000")
    bars("AAA")
    answer = run(config({**WEEKLY, "auto_promote": True}), "--once", "--json")
    assert answer.exit_code == 0, answer.output
    [result] = [json.loads(line) for line in answer.stdout.splitlines()]
    assert (result["policy"], result["symbol"], result["status"]) == ("weekly", "AAA", "refused")
    assert any("1000" in rule for rule in result["failed_verdicts"])


def test_a_model_that_a_server_could_not_open_is_not_promoted(
    config: Write, bars: Write, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars("AAA")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "sklearn.py").write_text("raise ImportError('no scikit-learn here')")
    monkeypatch.setenv("PYTHONPATH", str(broken))  # of the fresh process; this one has its modules already
    answer = run(config({**WEEKLY, "model_type": "hist_gb", "auto_promote": True}), "--once", "--json")
    assert answer.exit_code == 1, answer.output
    [result] = [json.loads(line) for line in answer.stdout.splitlines()]
    assert result["status"] == "failed"
    assert f"promote: {result['model_id']} can't be served: a fresh process" in result["error"]
    assert "no scikit-learn here" in result["error"]
    assert [entry.status for entry in load_registry(tmp_path / "models")] != ["production"]


def test_a_dry_run_shows_the_plan_and_writes_nothing(
    config: Write, bars: Write, run: Run, tmp_path: Path
) -> None:
    bars("AAA")
    spans = {"train_end": "2024-01-10", "test_start": "2024-01-11", "test_end": "2024-01-14"}
    path = config(
        {**WEEKLY, "symbols": ["AAA", "ABSENT", "X*"], "lookback_days": 10},
        {"name": "fixed", "symbols": ["AAA"], "auto_promote": True, **spans},
    )
    answer = run(path, "--dry-run")
    assert answer.exit_code == 0, answer.output
    shown = answer.stdout.splitlines()
    assert len(shown) == 4
    assert "X*/15m" in answer.stderr
    [weekly] = [line for line in shown if line.startswith("weekly") and "AAA/15m" in line]
    assert " 961 " in weekly, "ten days of quarter hours, both ends included"
    assert "logreg" in weekly
    assert "at its slot" in weekly
    [fixed] = [line for line in shown if line.startswith("fixed")]
    # the first bars warm the features up, and the last labels before the end would read beyond it
    assert "2024-01-03 to 2024-01-09, test 2024-01-11 to 2024-01-14" in fixed
    assert "weekly ABSENT/15m would fail: " in answer.stderr
    assert "no such file" in answer.stderr
    for refit in (False, True):
        chosen = ("--policy", "fixed", *(["--refit"] if refit else []))
        found = json.loads(run(path, "--dry-run", "--once", "--json", *chosen).stdout)
        assert [(row["key"], row["now"], row["auto_promote"], row["refit"]) for row in found["jobs"]] == [
            ("AAA/15m", True, True, refit)
        ]
    assert sorted(item.name for item in tmp_path.iterdir()) == ["bars", "models", "system.yml"]
    assert [item.name for item in (tmp_path / "models").iterdir()] == ["registry_events.jsonl"]


def test_what_is_given_goes_before_the_policies_and_is_no_run_of_their_slots(
    config: Write, bars: Write, run: Run, tmp_path: Path
) -> None:
    bars("AAA")
    path = config({**WEEKLY, "lookback_days": 10}, {"name": "other", "symbols": ["BBB"]})
    spans = ["--train-end", "2024-01-10 00:00:00+00:00", "--test-start", "2024-01-11T00:00Z"]
    spans += ["--test-end", "2024-01-14", "--symbols", "AAA,AAA"]
    given = run(path, "--policy", "weekly", "--once", "--json", *spans)
    assert given.exit_code == 0, given.output
    result = json.loads(given.stdout)
    meta = json.loads((tmp_path / "models" / result["model_id"] / "meta.json").read_text(encoding="utf-8"))
    assert (meta["test_start"], meta["test_end"]) == (
        "2024-01-11T00:00:00+00:00",
        "2024-01-14T00:00:00+00:00",
    )
    assert result["policy"].startswith("weekly.")
    state = json.loads((tmp_path / "retrain" / "state.json").read_text(encoding="utf-8"))
    assert list(state["policies"]) == [result["policy"]]

    def rows(*more: str) -> list[tuple[str, str, int]]:
        jobs = json.loads(run(path, "--dry-run", "--json", *more).stdout)["jobs"]
        return [(row["policy"].partition(".")[0], row["key"], row["bars"]) for row in jobs]

    days = ["--symbol", "A*", "--timeframes", "15m", "--lookback-days"]
    assert rows(*days, "5") == [("weekly", "AAA/15m", 481), ("other", "AAA/15m", 481)]
    path = config()  # and no policy at all
    assert rows(*days, "5") == [("given", "AAA/15m", 481)]
    both = run(path, "--dry-run", *days, "5", "--test-end", "2024-01-14")
    assert both.exit_code == 2
    assert "exclude one another" in both.stderr


@pytest.mark.parametrize("how", ["--once", "--dry-run"])
def test_a_registry_that_is_not_there_ends_it_with_what_to_do(
    how: str, config: Write, bars: Write, tmp_path: Path
) -> None:
    bars("AAA")
    path = config(WEEKLY)
    (tmp_path / "models").rename(tmp_path / "elsewhere")
    command = [sys.executable, "-m", "signalserve.cli.main", "retrain", how, "--config", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == exits.STORAGE
    assert f"there is no registry at {tmp_path / 'models'}" in done.stderr
    assert "registry init" in done.stderr
    assert not (tmp_path / "models").exists()


def test_without_a_policy_it_shows_how_one_is_written(config: Write, run: Run) -> None:
    answer = run(config())
    assert answer.exit_code == 2
    assert answer.stderr.startswith("error: no policy is configured")
    example = answer.stderr.split("\n", 1)[1]
    assert yaml.safe_load(example)["retrain"]["policies"][0]["schedule"] == "0 3 * * 1"


def test_a_schedule_or_a_policy_that_is_none_is_a_configuration_error(config: Write, run: Run) -> None:
    broken = run(config({**WEEKLY, "schedule": "on Mondays"}), "--dry-run")
    assert isinstance(broken.exception, ConfigError)
    unknown = run(config(WEEKLY), "--policy", "daily", "--once")
    assert isinstance(unknown.exception, ConfigError)


def test_patterns_that_match_nothing_and_a_second_retrain_exit_1(
    config: Write, run: Run, tmp_path: Path
) -> None:
    path = config(WEEKLY)
    nothing = run(path, "--once")
    assert nothing.exit_code == 1
    assert "no bar file matches" in nothing.stderr
    for more in (["--once"], []):
        with exclusive(tmp_path / "retrain"):
            busy = run(path, *more)
        assert busy.exit_code == 1
        assert "another retrain" in busy.stderr


def start(config: Path, *more: str) -> subprocess.Popen[str]:
    script = str(ROOT / "scripts" / "run_ml_retrain_schedule.py")
    # a shell that starts the tests in the background may have told them to ignore Ctrl-C
    return subprocess.Popen(
        [sys.executable, script, "--config", str(config), *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=config.parent,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        start_new_session=True,
    )


def test_ctrl_c_in_mid_retrain_leaves_nothing_half_done(config: Write, bars: Write, tmp_path: Path) -> None:
    bars("LATER")
    os.mkfifo(tmp_path / "bars" / "HELD_15m.csv")
    process = start(config({**WEEKLY, "symbols": ["ABSENT", "HELD", "LATER"]}, processes=1), "--once")
    # opens when the job has opened it too: it is in mid-training then, its run directory begun
    held = os.open(tmp_path / "bars" / "HELD_15m.csv", os.O_WRONLY)
    family = psutil.Process(process.pid).children(recursive=True)
    models = tmp_path / "models"
    assert [path.name[:14] for path in models.glob(".*") if path.is_dir()] == [".building-HELD"]
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    out, err = process.communicate(timeout=120)
    os.close(held)
    assert process.returncode == 130, err
    assert err == "interrupted\n"
    assert out.count("interrupted") >= 2
    assert family
    assert psutil.wait_procs(family, timeout=60)[1] == []
    assert [path.name for path in models.glob(".building*")] == []
    assert [(entry.symbol, entry.status) for entry in load_registry(models)] == [("ABSENT", "failed")]
    assert verify_log(models).ok
    lines = (tmp_path / "retrain" / "runs.jsonl").read_text(encoding="utf-8").splitlines()
    assert [(json.loads(line)["symbol"], json.loads(line)["status"]) for line in lines] == [
        ("ABSENT", "failed"),
        ("HELD", "interrupted"),
        ("LATER", "interrupted"),
    ]
    state = json.loads((tmp_path / "retrain" / "state.json").read_text(encoding="utf-8"))
    assert state["policies"]["weekly"]["started"] is not None
    assert state["policies"]["weekly"]["finished"] is None


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_the_long_running_mode_ends_at_a_signal_while_it_sleeps(
    config: Write, number: int, code: int
) -> None:
    process = start(config(WEEKLY))
    assert process.stderr is not None
    assert "waiting for the slots of weekly" in process.stderr.readline()
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (code, "", "interrupted\n" if code else "")
