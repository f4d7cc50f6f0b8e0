"""The command line against a real server: what it prints, and its exit codes."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NoReturn
from unittest import mock

import httpx
import joblib
import pytest
from sklearn.linear_model import Perceptron

from signalserve.cli import exits
from signalserve.cli.main import main
from signalserve.client import SignalClient
from signalserve.client.channel import caller
from signalserve.config.settings import load_settings
from signalserve.features.synthetic import synthetic_bars
from signalserve.registry import Promotion, register_model
from tests.registries import registry_at
from tests.server.conftest import ROOT, server_process
from tests.small_models import NAMES, register_copy, rows, sealed_template, write_run

FEATURES = json.dumps(dict(zip(NAMES, rows(1)[0].tolist(), strict=True)))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    template = sealed_template(folder / "template")
    for name in ("one", "two", "three"):
        register_copy(template, folder / "registry", name)
    registry_at(folder / "registry").promote([Promotion("one")])
    return folder / "registry"


@pytest.fixture(scope="module")
def target(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with server_process(base, tmp_path_factory.mktemp("log") / "log") as (_, target):
        yield target


def signalserve(*arguments: str, code: int = 0, given: str | None = None) -> str:
    """Run the command in this process; gives stdout, or stderr where it is meant to fail."""
    printed, told = io.StringIO(), io.StringIO()
    with (
        redirect_stdout(printed),
        redirect_stderr(told),
        mock.patch.object(sys, "argv", ["signalserve", *arguments]),
        mock.patch.object(sys, "stdin", io.StringIO(given or "")),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    assert (ended.value.code or 0) == code, (ended.value.code, printed.getvalue(), told.getvalue())
    return printed.getvalue() if code == 0 else told.getvalue()


def started(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run the installed command in a process of its own."""
    command = [str(Path(sys.executable).parent / "signalserve"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120, check=True)


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
    unserved = signalserve("archive", "one", "--reason", "retired", *at, code=exits.REFUSED)
    assert "say --allow-unserved and a reason" in unserved
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
    unknown = signalserve("health", "--service", "FOO/15m", *at, code=exits.NOT_FOUND)
    assert "no service or key 'FOO/15m'" in unknown
    assert "keys are SYMBOL/TIMEFRAME, and `signalserve models` lists them" in unknown
    assert "serve` running there" not in unknown
    assert signalserve("health", "--service", "BTCUSDT/15m", *at) == "SERVING\n"
    assert "serve` running there" in signalserve("health", "--target", "127.0.0.1:1", code=exits.SERVER_AWAY)
    signalserve("predict", "-s", "NOBODY", "--features", FEATURES, *at, code=exits.NOT_FOUND)
    signalserve("predict", "-s", "BTCUSDT", *at, code=exits.USAGE)
    signalserve("predict", "-s", "BTCUSDT", "--features", "{", *at, code=exits.USAGE)
    signalserve("predict", "-s", "BTCUSDT", "--csv", str(tmp_path / "none.csv"), *at, code=exits.USAGE)
    for odd in (
        "[]",
        "[1, 2]",
        "{}",
        "[{}]",
        '"text"',
        '{"a": "text"}',
        '{"a": null}',
        '[{"a": 1}, {"b": 1}]',
    ):
        assert "error:" in signalserve("predict", "-s", "BTCUSDT", "--features", odd, *at, code=exits.USAGE)
    both = ("--features", FEATURES, "--csv", "x.csv")
    assert "exclude one another" in signalserve("predict", "-s", "BTCUSDT", *both, *at, code=exits.USAGE)
    assert "70000 is no port" in signalserve("status", "--target", "127.0.0.1:70000", code=exits.USAGE)
    assert "70000 is no port" in signalserve("health", "--target", "127.0.0.1:70000", code=exits.USAGE)
    signalserve("serve", "--port", "70000", code=exits.USAGE)
    signalserve("serve", "--port", "-1", code=exits.USAGE)
    signalserve("models", "--status", "odd", *at, code=exits.USAGE)
    for key in ("BTCUSDT", "/", "BTCUSDT/", "/15m"):
        assert "SYMBOL/TIMEFRAME" in signalserve("rollback", key, "--reason", "r", *at, code=exits.USAGE)
    signalserve("frobnicate", code=exits.USAGE)
    (tmp_path / "file").write_text("no folder")
    for command in (
        ("registry", "validate"),
        ("registry", "clean"),
        ("registry", "verify-log"),
        ("backtest", "--symbol", "BTCUSDT"),
        ("evaluate", "one"),
    ):
        for folder, text in (("none", "does not exist"), ("file", "is a file")):
            at_folder = ("--registry", str(tmp_path / folder))
            assert text in signalserve(*command, *at_folder, code=exits.USAGE)
    assert "is a file" in signalserve("serve", "--registry", str(tmp_path / "file"), code=exits.USAGE)
    (tmp_path / "bad.yml").write_text("server: {prot: 1}\n")
    assert "server.prot: unknown key" in signalserve(
        "status", "-c", str(tmp_path / "bad.yml"), code=exits.USAGE
    )
    assert "no-such.yml" in signalserve("serve", "-c", "no-such.yml", code=exits.USAGE)


def test_a_refusal_of_the_server_is_told_apart_from_rows_that_never_left(target: str) -> None:
    ask = ("predict", "-s", "BTCUSDT", "--target", target)
    refused = signalserve(*ask, "--features", '{"z": 1}', code=exits.USAGE)
    assert "(MISSING_FEATURES)" in refused
    assert "can't be sent" not in refused
    assert "can't be sent" in signalserve(*ask, "--features", '{"z": [1]}', code=exits.USAGE)


def test_a_list_of_nothing_says_what_was_asked(target: str) -> None:
    at = ("--symbol", "ZZZ", "--timeframe", "1h", "--target", target)
    for command, text in (("models", "no model of"), ("events", "no event of")):
        listed = started(command, *at)
        assert listed.stdout == ""
        assert f"{text} symbol ZZZ, timeframe 1h; `signalserve {command}` lists" in listed.stderr
        assert "ZZZ" not in signalserve(command, "--json", *at)


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
    assert "trust" not in signalserve("registry", "adopt", "nobody", *at, code=exits.NOT_FOUND)
    assert "gone" in signalserve("registry", "adopt", "--all", "--yes", *at, code=exits.FAILED)
    assert "drop gone" in signalserve("registry", "clean", "--dry-run", *at)
    assert "dropped 1 entries" in signalserve("registry", "clean", *at)
    assert "nothing to clean" in signalserve("registry", "clean", *at)
    assert "ok" in signalserve("registry", "verify-log", *at)
    assert "legacy" in signalserve("registry", "validate", *at)


def test_an_initialised_registry_is_told_from_an_empty_folder(tmp_path: Path) -> None:
    base = tmp_path / "registry"
    at = ("--registry", str(base))
    base.mkdir()
    for command in (("registry", "verify-log"), ("registry", "validate"), ("registry", "clean")):
        refused = signalserve(*command, *at, code=exits.USAGE)
        assert "holds no registry: is its disk mounted? `signalserve registry init` makes one here" in refused
    assert list(base.iterdir()) == []
    (base / "notes.txt").write_text("mine")
    made = started("registry", "init", *at)
    assert "an empty registry in" in made.stdout
    assert "notes.txt" in made.stderr
    assert "no events" in signalserve("registry", "verify-log", *at)
    signalserve("registry", "validate", *at)
    assert "holds a registry already" in signalserve("registry", "init", *at)
    with_index = tmp_path / "index"
    write_run(with_index / "m", "BTCUSDT")
    (with_index / "registry_index.csv").write_text("model_id,symbol,timeframe,model_type,created_at,path\n")
    assert "holds a registry already" in signalserve("registry", "init", "--registry", str(with_index))
    assert not (with_index / "registry_events.jsonl").exists()


def test_validate_cuts_no_id_and_gives_one_verdict_a_model(tmp_path: Path) -> None:
    base = tmp_path / "registry"
    stem = "BTCUSDT-PERPETUAL-SWAP_15m_logreg_with_a_long_name"
    template = sealed_template(tmp_path / "template")
    ids = [f"{stem}_{number}" for number in range(3)]
    register_copy(template, base, ids[0])
    register_copy(template, base, ids[1])
    (base / ids[1] / "model.joblib").unlink()
    write_run(base / "legacy", "BTCUSDT")
    failing = write_run(base / "hard", "BTCUSDT")
    joblib.dump(Perceptron().fit(rows(), rows()[:, 0] > 0), base / "hard" / "model.joblib")
    register_model(failing, base)
    with (base / "registry_index.csv").open("a") as index:
        index.write(f"legacy,BTCUSDT,15m,logreg,2026-01-01,{'p' * 500},0.1,1.0,success\n")
        index.write(f"{ids[2]},BTCUSDT,15m,logreg,2026-01-01,/{'p' * 500},0.1,1.0,success\n")
    at = ("--registry", str(base))
    printed = io.StringIO()
    with (
        redirect_stdout(printed),
        mock.patch.object(sys, "argv", ["signalserve", "registry", "validate", *at]),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    assert ended.value.code == exits.FAILED
    lines = printed.getvalue().splitlines()
    verdicts = {line.split()[0]: " ".join(line.split()[2:]) for line in lines[1:6]}
    assert verdicts == {
        ids[0]: "valid",
        ids[1]: "not valid",
        "hard": "files whole, can't be served",
        "legacy": "files whole, served once adopted",
        ids[2]: "not valid",
    }
    assert max(map(len, lines[:6])) < 100
    remarks = lines[6:]
    assert any("it will not be served" in line and "hard" in line for line in remarks)
    assert any(f"{ids[1]}/model.joblib is missing" in line for line in remarks)


def test_a_rollback_may_say_what_it_expects_in_production(target: str) -> None:
    back = ("rollback", "BTCUSDT/15m", "--reason", "r", "--target", target)
    assert "expected two in production" in signalserve(*back, "--expected", "two", code=exits.REFUSED)
    assert "goes with one key" in signalserve(
        "rollback", "A/1h", "B/1h", *back[2:], "--expected", "two", code=2
    )


def test_the_demo_runs_from_bars_to_signals_and_swaps_the_model(tmp_path: Path) -> None:
    # the demo's registry has no such model, and the configured one stays out of it
    (tmp_path / "pins.yml").write_text('ml: {pins: {"BTCUSDT/15m": mine}}')
    printed = started("demo", "--bars", "12", "--pace", "0", "-c", "pins.yml", cwd=tmp_path).stdout
    assert "SYNTHETIC" in printed
    assert "promoted" in printed
    assert "12 bars, 12 answers, 0 held" in printed
    ids = {line.split("bars answered by ")[1] for line in printed.splitlines() if "bars answered by" in line}
    assert len(ids) == 2
    assert (tmp_path / "outputs/demo/live/SYNTHETIC_15m.json").is_file()
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["demo"]
    assert "serve --config outputs/demo/system.yml" in printed
    own = load_settings(tmp_path / "outputs/demo/system.yml")
    assert (own.ml.models_dir, own.ml.pins) == (Path("outputs/demo/ml_models"), {})
    assert (tmp_path / own.data.ohlcv_file("SYNTHETIC", "15m")).is_file()
    assert "ML Lab on http://127.0.0.1:" in printed
    (promoted,) = [
        event
        for event in registry_at(tmp_path / own.ml.models_dir).events()
        if event.action == "promote" and event.via == "rpc"
    ]
    assert promoted.actor == "demo"  # by its token
    # without a number of bars server and lab stay when the bars are over
    command = [str(Path(sys.executable).parent / "signalserve"), "demo", "--pace", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        lines: list[str] = []
        try:
            assert process.stdout is not None
            while not lines or "stay until Ctrl-C" not in lines[-1]:
                lines.append(process.stdout.readline())
                assert lines[-1], "".join(lines)
            again = "".join(lines)
            address = again.partition("ML Lab on ")[2].partition(": to promote")[0]
            assert httpx.get(f"{address}/api/ml/server", timeout=60).json()["state"] == "serving"
            process.send_signal(signal.SIGINT)
            assert "server and lab stopped" in process.stdout.read()
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()
    assert "in production already" in again


def test_inputs_that_are_not_there_are_told_apart_from_runs_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGNALSERVE__PROMOTION__GATE", "evidence")
    bars = tmp_path / "AAA_15m.csv"
    synthetic_bars("AAA", 1500, seed=3).to_csv(bars)
    base = tmp_path / "registry"
    at = ("--registry", str(base))
    train = ("train", "--symbol", "AAA", "--model-type", "logreg", "--output-dir", str(base))
    assert "no such file" in signalserve(*train, "--ohlcv", str(tmp_path / "typo.csv"), code=exits.USAGE)
    assert "is a folder" in signalserve(*train, "--ohlcv", str(tmp_path), code=exits.USAGE)
    assert not base.exists()
    (tmp_path / "broken.csv").write_text("timestamp,open\n")
    failed = signalserve(*train, "--ohlcv", str(tmp_path / "broken.csv"), code=exits.FAILED)
    failed_id = failed.split("registered as failed: ")[1].strip().rstrip(")")
    backtest = ("backtest", "--symbol", "AAA", *at, "--output-dir", str(tmp_path / "backtests"))
    for command in (("evaluate", failed_id, *at), (*backtest, "--model-id", failed_id)):
        assert f"{failed_id} is a failed training run: " in signalserve(*command, code=exits.REFUSED)
    assert "nothing is in production" in signalserve(*backtest, code=exits.REFUSED)
    signalserve("backtest", "--symbol", "ZZZ", *at, code=exits.NOT_FOUND)
    rules = signalserve(*backtest, "--proba-entry", "0.4", "--proba-exit", "0.6", code=exits.USAGE)
    assert rules == "error: proba_exit must not be above proba_entry\n"
    assert "fee_bps: " in signalserve(*backtest, "--fee-bps", "-1", code=exits.USAGE)
    trained = signalserve(*train, "--ohlcv", str(bars))
    model_id = trained.split("model_id")[1].split()[0]
    assert f"signalserve evaluate {model_id} --ohlcv {bars} --registry {base}" in trained
    mine = (*backtest, "--model-id", model_id)
    assert "is a folder" in signalserve(*mine, "--ohlcv", str(tmp_path), code=exits.USAGE)
    for command in (mine, train):
        to_file = ("--ohlcv", str(bars), "--output-dir", str(bars))
        assert "is a file" in signalserve(*command, *to_file, code=exits.USAGE)
    assert "no such file" in signalserve(*mine, "--ohlcv", str(tmp_path / "typo.csv"), code=exits.USAGE)
    overlap = signalserve(*mine, "--ohlcv", str(bars), "--start", "2024-01-02", code=exits.REFUSED)
    assert "--allow-in-sample runs it all the same" in " ".join(overlap.split())
    shown = signalserve(
        *mine, "--ohlcv", str(bars), "--start", "2024-01-02 00:00:00+00:00", "--allow-in-sample"
    )
    assert "in sample" in shown
    with server_process(base, tmp_path / "log") as (_, target):
        to = ("--target", target)
        assert "column" in signalserve("models", failed_id, *to)
        assert "column" in signalserve("events", "--model-id", failed_id, *to)
        signalserve("evaluate", model_id, "--ohlcv", str(bars), *at, code=exits.REFUSED)
        (tmp_path / "BBB_15m.csv").write_bytes(bars.read_bytes())
        taken = started(*mine, "--ohlcv", str(tmp_path / "BBB_15m.csv")).stderr
        assert "looks like bars of BBB/15m, and is taken for AAA/15m" in taken
        assert "refused by " in signalserve("events", "--model-id", model_id, *to)
        live = ("--ohlcv", str(bars), "--snapshot-dir", str(tmp_path / "live"), *to)
        signalserve("live", "--symbol", "AAA", *live, code=exits.REFUSED)
        signalserve("live", "--symbol", "ZZZ", *live, code=exits.NOT_FOUND)
        failed = signalserve("live", "--symbol", "AAA", *live, "--model-id", failed_id, code=exits.REFUSED)
        assert f"{failed_id} is a failed training run: " in failed
        other = signalserve("live", "--symbol", "ZZZ", *live, "--model-id", model_id, code=exits.REFUSED)
        assert f"{model_id} is a model of AAA/15m, not of ZZZ/15m" in other
        assert "is a file" in signalserve(
            "live", "--symbol", "AAA", *live, "--snapshot-dir", str(bars), code=exits.USAGE
        )
        signalserve("live", "--symbol", "AAA", *live, "--ohlcv", str(tmp_path / "typo.csv"), code=exits.USAGE)
        signalserve("promote", model_id, "--force", "--reason", "test", *to)
        event = json.loads(signalserve("events", "--limit", "1", "--json", *to))[0]
        assert event["actor"].startswith(f"{caller()} (unverified, ipv4:127.0.0.1)")
        archived = started("archive", model_id, "--allow-unserved", "--reason", "test", *to)
        assert "AAA/15m has nothing in production now" in archived.stderr


def test_what_is_wrong_in_the_index_is_flagged_by_a_server_that_goes_on(tmp_path: Path) -> None:
    base = tmp_path / "registry"
    template = sealed_template(tmp_path / "template")
    for name in ("one", "two"):
        register_copy(template, base, name)
    registry_at(base).promote([Promotion("one")])
    index = base / "registry_index.csv"
    index.write_text(index.read_text().replace("success", "production"))
    with server_process(base, tmp_path / "log") as (_, target):
        found = json.loads(signalserve("status", "--json", "--target", target))
        assert found["models"][0]["model_id"] == "one"
        assert found["warnings"] == [
            "two is a second production row of BTCUSDT/15m: one counts; promote one of them, which archives the other"
        ]
        assert "registry.warning" in (tmp_path / "log").read_text()
        registry_at(base).promote([Promotion("two")])
        index.write_text(index.read_text().replace("production", "prodction"))
        with SignalClient(target) as client:
            states = client.watch_status(deadline_ms=60_000)
            spoilt = next(
                status for status in states if "prodction" in "".join(status.warnings) and not status.loading
            )
        assert spoilt.warnings[0].startswith("registry_index.csv, line 3: status 'prodction' is")
        assert [model.model_id for model in spoilt.models] == ["two"]


@pytest.mark.parametrize(
    ("command", "loading"),
    [
        (("--version",), "typer"),
        (("train", "--symbol", "AAA"), "typer"),
        (("train", "--symbol", "AAA"), "signalserve.cli.train"),
        (("train", "--symbol", "AAA"), "signalserve.config.settings"),
        (("status", "--target", "127.0.0.1:1"), "grpc"),
        (("registry", "validate"), "signalserve.registry.errors"),
    ],
)
def test_ctrl_c_says_interrupted_also_while_the_command_is_loading(
    command: tuple[str, ...], loading: str
) -> None:
    started = (
        "import os, signal, sys, threading, runpy\n"
        "class Stop:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {loading!r}: signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Stop())\n"
        f"sys.argv = ['signalserve', *{list(command)!r}]\n"
        "runpy.run_module('signalserve.cli', run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", started], capture_output=True, text=True, cwd=ROOT, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (exits.INTERRUPTED, "interrupted\n")


def test_ctrl_c_says_interrupted_once_while_a_command_works(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr("signalserve.config.settings.load_settings", interrupt)
    assert signalserve("health", code=exits.INTERRUPTED) == "interrupted\n"


def test_version_and_help_print_and_end() -> None:
    assert started("--version").stdout.startswith("signalserve ")
    for command in ("serve", "train", "promote", "live"):
        assert "--help" in signalserve(command, "--help")
