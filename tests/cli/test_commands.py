"""The command line against a real server: what it prints, and its exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli import exits
from registry import Promotion, promote
from tests.server.conftest import ROOT, server_process
from tests.small_models import NAMES, register_copy, rows, sealed_template, write_run

FEATURES = json.dumps(dict(zip(NAMES, rows(1)[0].tolist(), strict=True)))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    template = sealed_template(folder / "template")
    for name in ("one", "two", "three"):
        register_copy(template, folder / "registry", name)
    promote(folder / "registry", [Promotion("one")])
    return folder / "registry"


@pytest.fixture(scope="module")
def target(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with server_process(base, tmp_path_factory.mktemp("log") / "log") as (_, target):
        yield target


def signalserve(*arguments: str, code: int = 0, given: str | None = None, cwd: Path = ROOT) -> str:
    """Run the command; gives stdout, or stderr where it is meant to fail."""
    command = [str(Path(sys.executable).parent / "signalserve"), *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, input=given, cwd=cwd, timeout=120, check=False
    )
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stdout if code == 0 else done.stderr


def test_ops_see_promote_and_roll_back_through_the_server(target: str) -> None:
    at = ("--target", target)
    listed = json.loads(signalserve("models", "--json", *at))["models"]
    assert {model["model_id"]: model["status"] for model in listed} == {
        "one": "production",
        "two": "success",
        "three": "success",
    }
    refused = signalserve("promote", "two", "--expected", "three", *at, code=exits.REFUSED)
    assert "found one" in refused
    assert "two" in signalserve("promote", "two", "--expected", "one", "--reason", "weekly", *at)
    assert json.loads(signalserve("status", "--json", *at))["models"][0]["model_id"] == "two"
    scored = json.loads(signalserve("predict", "-s", "BTCUSDT", "--features", FEATURES, "--json", *at))
    assert scored["model_id"] == "two"
    assert 0 < scored["scores"][0] < 1
    assert "two" in signalserve("predict", "-s", "BTCUSDT", "--features", "-", *at, given=FEATURES)
    rolled = json.loads(signalserve("rollback", "BTCUSDT/15m", "--reason", "bad day", "--json", *at))
    assert rolled["transitions"][0] == {
        "symbol": "BTCUSDT",
        "timeframe": "15m",
        "model_id": "one",
        "previous_model_id": "two",
    }
    assert "quarantined" in signalserve("models", *at)
    assert "three" in signalserve("archive", "three", "--reason", "retired", *at)
    actions = [event["action"] for event in json.loads(signalserve("events", "--json", *at))]
    assert actions[:3] == ["archive", "rollback", "promote"]
    assert "weekly" in signalserve("events", *at)
    assert "one" in signalserve("models", "one", *at)
    assert "SERVING" in signalserve("health", *at)


def test_exit_codes_tell_what_went_wrong(target: str, tmp_path: Path) -> None:
    at = ("--target", target)
    assert "serve" in signalserve("status", "--target", "127.0.0.1:1", code=exits.SERVER_AWAY)
    signalserve("health", "--target", "127.0.0.1:1", code=exits.SERVER_AWAY)
    signalserve("models", "nobody", *at, code=exits.NOT_FOUND)
    signalserve("predict", "-s", "NOBODY", "--features", FEATURES, *at, code=exits.NOT_FOUND)
    signalserve("predict", "-s", "BTCUSDT", *at, code=exits.USAGE)
    signalserve("predict", "-s", "BTCUSDT", "--features", "{", *at, code=exits.USAGE)
    signalserve("predict", "-s", "BTCUSDT", "--csv", str(tmp_path / "none.csv"), *at, code=exits.USAGE)
    signalserve("models", "--status", "odd", *at, code=exits.USAGE)
    signalserve("rollback", "BTCUSDT", "--reason", "r", *at, code=exits.USAGE)
    signalserve("frobnicate", code=exits.USAGE)
    (tmp_path / "bad.yml").write_text("server: {prot: 1}\n")
    assert "server.prot: unknown key" in signalserve(
        "status", "-c", str(tmp_path / "bad.yml"), code=exits.USAGE
    )
    assert "no-such.yml" in signalserve("serve", "-c", "no-such.yml", code=exits.USAGE)


def test_the_registry_commands_work_without_a_server(tmp_path: Path) -> None:
    base = tmp_path / "registry"
    write_run(base / "legacy", "BTCUSDT")
    (base / "registry_index.csv").write_text(
        "model_id,symbol,timeframe,model_type,created_at,path,cum_return,sharpe\n"
        "legacy,BTCUSDT,15m,logreg,2026-01-01,x,0.1,1.0\n"
        "gone,BTCUSDT,15m,logreg,2026-01-02,x,0.1,1.0\n"
    )
    at = ("--registry", str(base))
    assert "legacy index" in signalserve("registry", "verify-log", "--json", *at)
    signalserve("registry", "validate", *at, code=exits.FAILED)
    signalserve("registry", "adopt", "legacy", *at, code=exits.FAILED, given="n\n")
    assert "gone" in signalserve("registry", "adopt", "--all", "--yes", *at, code=exits.FAILED)
    assert "drop gone" in signalserve("registry", "clean", "--dry-run", *at)
    assert "dropped 1 entries" in signalserve("registry", "clean", *at)
    assert "nothing to clean" in signalserve("registry", "clean", *at)
    assert "ok" in signalserve("registry", "verify-log", *at)
    assert "legacy" in signalserve("registry", "validate", *at)


def test_the_demo_runs_from_bars_to_signals_and_swaps_the_model(tmp_path: Path) -> None:
    printed = signalserve("demo", "--bars", "12", "--pace", "0", cwd=tmp_path)
    assert "SYNTHETIC" in printed
    assert "promoted" in printed
    assert "12 bars, 12 answers, 0 held" in printed
    ids = {line.split("bars answered by ")[1] for line in printed.splitlines() if "bars answered by" in line}
    assert len(ids) == 2
    assert (tmp_path / "outputs/live/SYNTHETIC_15m.json").is_file()
    again = signalserve("demo", "--bars", "2", "--pace", "0", cwd=tmp_path)
    assert "in production already" in again


def test_version_and_help_print_and_end() -> None:
    assert signalserve("--version").startswith("signalserve ")
    for command in ("serve", "train", "promote", "live"):
        assert "--help" in signalserve(command, "--help")
