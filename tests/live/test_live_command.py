import json
import os
import signal
import threading

import pytest
import typer
import yaml
from typer.testing import CliRunner

from signalserve.cli import live
from signalserve.config.settings import ConfigError
from signalserve.features.synthetic import synthetic_bars


@pytest.fixture
def app():
    made = typer.Typer(pretty_exceptions_enable=False)
    made.callback()(lambda: None)
    made.command()(live.live)
    return made


@pytest.fixture
def invoke(app, server, tmp_path):
    bars = tmp_path / "SYNTH_15m.csv"
    synthetic_bars("SYNTH", 260, seed=4).to_csv(bars)
    config = tmp_path / "system.yml"
    settings = {
        "data": {"ohlcv_path": str(tmp_path / "{symbol}_{timeframe}.csv")},
        "live": {"snapshot_dir": str(tmp_path / "live")},
        "client": {"target": server.target, "deadline_ms": 60_000},
    }

    def run(*arguments, **changes):
        for section, values in changes.items():
            settings[section] = settings.get(section, {}) | values
        config.write_text(yaml.safe_dump(settings))
        return CliRunner().invoke(app, ["live", "--config", str(config), *arguments])

    return run


def test_a_replay_prints_a_line_a_bar_and_a_summary(invoke, tmp_path):
    result = invoke("--symbol", "SYNTH")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert len(lines) == 1 + 1 + 60  # the head, the warm-up, the bars
    assert "warm-up of the features" in lines[1]
    assert lines[-1].startswith("2024-01-03 16:45")
    assert lines[-1].endswith(" first")
    assert "260 bars (200 of warm-up), 60 scores (0 late), 0 held" in result.stderr
    assert json.loads((tmp_path / "live" / "SYNTH_15m.json").read_text())["state"] == "stopped"


def test_json_gives_one_object_a_line_and_bar_and_nothing_else_on_stdout(invoke):
    result = invoke("--symbol", "SYNTH", "--bars", "20", "--json", "--model-id", "challenger")
    assert result.exit_code == 0, result.output
    bars = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(bars) == 20
    assert bars[-1]["bar_time"] == "2024-01-03T16:45:00+00:00"
    assert {bar["model_id"] for bar in bars} == {"challenger"}
    assert all(0.0 <= bar["probability"] <= 1.0 for bar in bars)


def test_an_account_that_may_sell_short_shows_it_in_the_table_and_in_the_snapshot(invoke, tmp_path):
    result = invoke("--symbol", "SYNTH", trading={"allow_short": True, "proba_entry": 0.6, "proba_exit": 0.4})
    assert result.exit_code == 0, result.output
    sold = next(number for number, line in enumerate(result.stdout.splitlines()) if " SHORT " in line)
    assert " short " in result.stdout.splitlines()[sold + 1]
    snapshot = json.loads((tmp_path / "live" / "SYNTH_15m.json").read_text())
    assert {entry["signal"] for entry in snapshot["signals"]} >= {"LONG", "SHORT"}
    assert {bar["position"] for bar in snapshot["recent"]} == {"flat", "long", "short"}
    assert snapshot["starting_equity"] == 10_000.0


def test_a_key_that_moved_is_a_line_that_says_where_to(invoke, tmp_path):
    result = invoke("--symbol", "SYNTH", live={"proba_entry": 0.6})
    assert isinstance(result.exception, ConfigError)
    assert (
        str(result.exception) == f"{tmp_path / 'system.yml'}: live.proba_entry: moved to trading.proba_entry"
    )


def test_start_replays_the_bars_from_a_time_on(invoke):
    result = invoke("--symbol", "SYNTH", "--start", "2024-01-03T16:00:00", "--json")
    assert [json.loads(line)["bar_time"][11:16] for line in result.stdout.splitlines()] == [
        "16:00",
        "16:15",
        "16:30",
        "16:45",
    ]


def test_ctrl_c_ends_a_replay_with_a_summary_and_exit_code_0(invoke, server):
    before = signal.getsignal(signal.SIGINT)

    def interrupt():
        server.prediction.asked.wait(60)
        os.kill(os.getpid(), signal.SIGINT)

    helper = threading.Thread(target=interrupt)
    helper.start()
    result = invoke("--symbol", "SYNTH", "--bars", "30", "--pace", "3600")
    helper.join()
    assert result.exit_code == 0, result.output
    assert "stopped: 1 bars" in result.stderr
    assert signal.getsignal(signal.SIGINT) is before


def test_a_promote_to_other_features_is_in_the_summary_as_what_became_of_it(invoke, server):
    def refuse(count, request):
        if count > 20 and request.feature_set == "core@1":
            return server.refusal("FAILED_PRECONDITION", "FEATURE_SET_MISMATCH")
        return None

    def swapped(count, request):
        server.registry.metadata["feature_preset"] = "extended" if count > 19 else "core"
        return refuse(count, request)

    server.prediction.refuse = swapped
    result = invoke("--symbol", "SYNTH")
    assert result.exit_code == 0, result.output
    assert "60 scores (0 late), 0 held, " in result.stderr
    assert "0 errors, 1 changes of features;" in result.stderr
    assert "features changed from core@1 to extended@1" in result.output
    server.prediction.requests.clear()
    server.registry.metadata["feature_preset"] = "core"
    server.prediction.refuse = refuse
    result = invoke("--symbol", "SYNTH")
    assert "20 scores (0 late), 40 held (40 for want of features), " in result.stderr


def test_a_dead_server_is_said_and_the_bars_are_held(invoke, server):
    server.stop()
    result = invoke("--symbol", "SYNTH", "--settle", "0", client={"deadline_ms": 50})
    assert result.exit_code == 3, result.output
    assert "is away (UNAVAILABLE" in result.stderr
    assert "holding until it answers, with feature preset core" in result.stderr
    assert "0 scores (0 late), 60 held, 0 signals" in result.stderr
    assert "60 bars have no score" in result.stderr
    bars = [line for line in result.stdout.splitlines() if line.startswith("2024-") and "held" in line]
    assert len(bars) == 60
    assert sum("the server is away" in line for line in bars) == 1
    assert sum(line.endswith("  (held)") for line in bars) >= 58
    assert "0 reconnects (" in result.stderr


def test_the_line_of_a_late_score_does_not_say_again_why_its_bar_was_held(invoke, server):
    server.prediction.refuse = lambda count, _: (
        server.refusal("NOT_FOUND", "NOTHING_YET") if count <= 6 else None
    )
    result = invoke("--symbol", "SYNTH", client={"deadline_ms": 50})
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert "  (held: NOT_FOUND (NOTHING_YET))" in result.stdout
    late = [line for line in lines if "late" in line]
    assert late
    assert [line for line in late if not line.endswith(" first  (late)")] == []


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--symbol", "OTHER"), 2, "OTHER_15m.csv: no such file"),
        (("--symbol", "SYNTH", "--preset", "none"), 2, "there are core, extended"),
        (("--symbol", "SYNTH", "--timeframe", "x"), 2, "is no timeframe"),
        (("--symbol", "SYNTH", "--bars", "0"), 2, "--bars"),
        (("--symbol", "a/b", "--ohlcv", "{bars}"), 4, "no model of a/b/15m in the registry"),
        (("--symbol", "IDLE", "--ohlcv", "{bars}"), 5, "no model of IDLE/15m is in production"),
        (("--symbol", "a/b", "--ohlcv", "{bars}", "--model-id", "m"), 2, "make no file name"),
    ],
)
def test_what_cannot_be_run_is_one_line_and_an_exit_code(invoke, tmp_path, arguments, code, says):
    result = invoke(*(item.format(bars=tmp_path / "SYNTH_15m.csv") for item in arguments))
    assert result.exit_code == code, result.output
    assert says in " ".join(result.stderr.split())


def test_a_model_that_needs_other_features_is_refused_before_the_first_bar(invoke, server):
    server.registry.feature_names += ["moon_phase"]
    result = invoke("--symbol", "SYNTH")
    assert result.exit_code == 1
    assert "preset core does not give: moon_phase" in " ".join(result.stderr.split())
    assert server.prediction.requests == []
