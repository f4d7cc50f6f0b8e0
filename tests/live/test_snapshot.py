import json
import subprocess
import sys
import threading
from datetime import datetime

import pytest

from signalserve.client import LatencyWindow
from signalserve.features.pipeline import FeaturePipeline
from signalserve.features.synthetic import synthetic_bars
from signalserve.live.snapshot import SnapshotFile, SnapshotInUseError

WARM = FeaturePipeline("core").warmup_bars
FRAME = synthetic_bars("SYNTH", WARM + 60, seed=4)


def test_the_snapshot_says_what_the_engine_does(make_rig, tmp_path):
    file = SnapshotFile(tmp_path / "live", "SYNTH", "15m")
    assert file.path == tmp_path / "live" / "SYNTH_15m.json"
    seen = []
    rig = make_rig(FRAME, snapshot=file, on_bar=lambda _: seen.append(json.loads(file.path.read_text())))
    result = rig.engine.run()
    assert [item["counts"]["bars"] for item in seen] == list(range(1, len(FRAME) + 1))
    assert [item["last_probability"] for item in seen] == [record.probability for record in result.records]
    last = seen[-1]
    assert (last["state"], last["server"], last["server_error"]) == ("running", "connected", "")
    assert (last["used_model_id"], last["revision"], last["pinned_model_id"]) == ("first", 7, None)
    assert datetime.fromisoformat(last["last_bar"]) == result.records[-1].bar_time
    assert (last["position"], last["equity"]) == (result.position, result.equity)
    assert 0.0 < last["latency_p50_ms"] <= last["latency_p99_ms"]
    assert last["counts"]["answers"] == 60
    assert last["counts"]["signals"] == result.counts.signals
    assert [item["signal"] for item in last["signals"]] == [
        record.signal for record in result.records if record.signal
    ][-50:]
    assert last["recent"][-1]["probability"] == result.records[-1].probability
    assert len(last["recent"]) == 96
    assert datetime.fromisoformat(last["started"]) <= datetime.fromisoformat(last["updated"])
    assert json.loads(file.path.read_text())["state"] == "stopped"
    assert {path.name for path in file.path.parent.iterdir()} == {"SYNTH_15m.json", ".SYNTH_15m.json.lock"}


def test_the_snapshot_says_that_the_server_is_away(make_rig, server, tmp_path):
    server.stop()
    file = SnapshotFile(tmp_path, "SYNTH", "15m")
    make_rig(FRAME, snapshot=file, deadline_ms=100.0, settle_seconds=0.0).engine.run()
    found = json.loads(file.path.read_text())
    assert (found["server"], found["unanswered"], found["counts"]["holds"]) == ("away", 60, 60)
    assert "UNAVAILABLE" in found["server_error"]
    assert (found["used_model_id"], found["latency_p50_ms"], found["position"]) == (None, None, "flat")


def test_the_snapshot_of_a_server_that_is_back_says_no_error_but_the_last_one_with_its_time(
    make_rig, server, tmp_path
):
    file = SnapshotFile(tmp_path, "SYNTH", "15m")
    seen = []

    def outage(record):
        if not record.late:
            seen.append(json.loads(file.path.read_text()))
        if len(rig.calls) == 10:
            server.stop()
        elif len(rig.calls) == 12:
            server.start()
            rig.wait_connected()

    rig = make_rig(FRAME[: WARM + 20], history=WARM, snapshot=file, deadline_ms=1_000.0, on_bar=outage)
    rig.engine.run()
    before, away, back = seen[9], seen[11], seen[-1]
    assert (before["server"], before["server_error"], before["last_error"]) == ("connected", "", "")
    assert (before["last_error_time"], before["counts"]["reconnects"]) == (None, 0)
    assert (away["server"], away["counts"]["reconnects"]) == ("away", 0)
    assert away["server_error"] == away["last_error"]
    assert "127.0.0.1" in away["server_error"]  # in full here, and in short with the bar
    assert away["recent"][-1]["note"] == "held: UNAVAILABLE: the server is away"
    assert (back["server"], back["server_error"], back["counts"]["reconnects"]) == ("connected", "", 1)
    assert back["counts"]["reconnect_attempts"] >= 1
    assert "UNAVAILABLE" in back["last_error"]
    assert datetime.fromisoformat(back["started"]) < datetime.fromisoformat(back["last_error_time"])


def test_a_reader_finds_a_whole_document_at_any_moment(make_rig, tmp_path):
    file = SnapshotFile(tmp_path, "SYNTH", "15m")
    done, texts = threading.Event(), set()

    def read():
        while not done.is_set():
            if file.path.exists():
                texts.add(json.loads(file.path.read_text())["counts"]["bars"])

    reader = threading.Thread(target=read)
    reader.start()
    try:
        make_rig(FRAME, history=WARM, snapshot=file).engine.run()
    finally:
        done.set()
        reader.join()
    assert len(texts) > 1


def test_a_snapshot_that_cannot_be_written_is_counted_and_stops_nothing(make_rig, tmp_path):
    file = SnapshotFile(tmp_path / "live", "SYNTH", "15m")
    file.path.mkdir()
    result = make_rig(FRAME, history=WARM, snapshot=file).engine.run()
    assert result.counts.answers == 60
    assert result.counts.snapshot_errors == 60 + 1  # and the last one of the run
    assert {path.name for path in file.path.parent.iterdir()} == {file.path.name, f".{file.path.name}.lock"}


@pytest.mark.parametrize("symbol", ["", "../up", "a/b", "a\\b", "a\nb"])
def test_a_symbol_that_makes_no_file_name_is_refused(symbol, tmp_path):
    with pytest.raises(ValueError, match="make no file name"):
        SnapshotFile(tmp_path, symbol, "15m")


def test_percentiles_are_of_the_newest_latencies():
    window = LatencyWindow(100)
    assert window.percentile(50) is None
    for value in range(1, 301):
        window.add(float(value))
    assert (window.percentile(50), window.percentile(99), window.percentile(100)) == (250.0, 299.0, 300.0)
    assert window.percentile(0) == 201.0


def test_a_second_engine_on_one_file_does_not_start_and_leaves_the_snapshot_alone(make_rig, tmp_path):
    def second(_):
        before = file.path.read_bytes()
        with pytest.raises(SnapshotInUseError, match=r"another live engine keeps .*SYNTH_15m\.json: stop it"):
            make_rig(FRAME, snapshot=SnapshotFile(tmp_path, "SYNTH", "15m")).engine.run()
        assert file.path.read_bytes() == before

    file = SnapshotFile(tmp_path, "SYNTH", "15m")
    result = make_rig(FRAME, history=WARM + 57, snapshot=file, on_bar=second).engine.run()
    assert (result.counts.bars, result.counts.snapshot_errors) == (3, 0)
    # the first has ended: its file is free
    assert make_rig(FRAME, history=WARM + 57, snapshot=file).engine.run().counts.bars == 3


HOLDER = """
import sys
from signalserve.live.snapshot import SnapshotFile
with SnapshotFile(sys.argv[1], "SYNTH", "15m").held():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_file_of_a_killed_engine_is_taken_over(make_rig, tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        file = SnapshotFile(tmp_path, "SYNTH", "15m")
        with pytest.raises(SnapshotInUseError), file.held():
            pass
        other.kill()
        other.wait()
        with file.held():
            pass


def test_the_snapshot_of_numbers_that_json_does_not_have_is_json_all_the_same(make_rig, tmp_path):
    file = SnapshotFile(tmp_path, "SYNTH", "15m")
    rig = make_rig(FRAME, history=WARM, snapshot=file)
    last = rig.source._bars[-1]
    rig.source._bars[-1] = last.__class__(last.time, 1.0, 1.0, 1.0, float("nan"), 1.0)
    rig.engine.run()
    found = json.loads(file.path.read_text(), parse_constant=pytest.fail)
    assert found["recent"][-1]["close"] is None
    assert found["counts"]["bars"] == 60
