"""The live engines, by the snapshots that the real writer leaves."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from signalserve.lab.live import LiveEngines
from signalserve.live.records import BarRecord, LiveCounts
from signalserve.live.scoring import LinkReport
from signalserve.live.snapshot import LiveSnapshot, SignalEntry, SnapshotFile
from signalserve.trading.rules import TradingRules
from signalserve.trading.strategy import Signal
from tests.lab.conftest import OpenLab, lab_settings

NOW = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
BAR = timedelta(minutes=15)


def bar(number: int, model_id: str, position: str, probability: float | None = 0.6) -> BarRecord:
    signal = Signal.LONG if number == 1 else None
    return BarRecord(
        NOW + number * BAR,
        100.0 + number,
        probability,
        signal,
        model_id,
        7,
        1.5,
        False,
        position,
        10_000.0,
        (),
        "",
    )


def snapshot(**changes: Any) -> LiveSnapshot:
    recent = (bar(0, "a", "flat"), bar(1, "a", "long"), bar(2, "b", "long", None), bar(3, "b", "short"))
    values: dict[str, Any] = {
        "symbol": "BTCUSDT",
        "timeframe": "15m",
        "state": "running",
        "started": NOW,
        "updated": NOW + 3 * BAR,
        "pinned_model_id": None,
        "used_model_id": "b",
        "revision": 7,
        "last_bar": NOW + 3 * BAR,
        "last_probability": 0.6,
        "position": "short",
        "equity": 10_120.0,
        "starting_equity": 10_000.0,
        "rules": TradingRules(0.6, 0.4, fee_bps=5.0, slippage_bps=2.0),
        "feature_set": "core@1",
        "latency_p50_ms": 1.2,
        "latency_p99_ms": 2.5,
        "link": LinkReport("connected"),
        "counts": LiveCounts(bars=4, errors=1),
        "signals": (SignalEntry(NOW + BAR, "LONG", 0.6, "a", 101.0),),
        "recent": recent,
    }
    return LiveSnapshot(**{**values, **changes})


def write(folder: Path, **changes: Any) -> None:
    found = snapshot(**changes)
    SnapshotFile(folder, found.symbol, found.timeframe).write(found)


def test_an_engine_says_what_it_does_over_its_recent_bars(tmp_path: Path, open_lab: OpenLab) -> None:
    write(tmp_path / "live", updated=datetime.now(UTC))
    lab = open_lab(lab_settings(tmp_path))
    (found,) = lab.json("/api/ml/live")["engines"]
    assert found == lab.json("/api/ml/live/BTCUSDT_15m")
    assert (found["state"], found["used_model_id"], found["revision"]) == ("running", "b", 7)
    assert [item["probability"] for item in found["recent"]] == [0.6, 0.6, None, 0.6]
    assert found["bands"] == [
        {"start": "2026-01-05T12:15:00Z", "end": "2026-01-05T12:30:00Z", "side": "long"},
        {"start": "2026-01-05T12:45:00Z", "end": "2026-01-05T12:45:00Z", "side": "short"},
    ]
    assert found["model_changes"] == [{"bar_time": "2026-01-05T12:30:00Z", "before": "a", "after": "b"}]
    assert (found["proba_entry"], found["proba_exit"]) == (0.6, 0.4)
    assert (found["counts"]["errors"], found["latency_p99_ms"], found["server"]) == (1.0, 2.5, "connected")
    assert found["signals"][0]["bar_time"] == "2026-01-05T12:15:00Z"


def test_a_regressors_engine_shows_expected_returns_and_their_thresholds(
    tmp_path: Path, open_lab: OpenLab
) -> None:
    recent = (replace(bar(0, "a", "flat", None), value=0.00123),)
    write(
        tmp_path / "live", updated=datetime.now(UTC), recent=recent, last_probability=None, last_value=0.00123
    )
    lab = open_lab(lab_settings(tmp_path))
    (found,) = lab.json("/api/ml/live")["engines"]
    assert (found["last_probability"], found["last_value"], found["recent"][0]["value"]) == (
        None,
        0.00123,
        0.00123,
    )
    assert (found["value_entry_bps"], found["value_exit_bps"]) == (14.0, 0.0)
    page = lab.get("/live").text
    assert page.count("+12.3 bps") == 3
    assert "14.0, 0.0 bps" in page


@pytest.mark.parametrize(
    ("state", "late", "expected"),
    [
        ("running", 2.5 * BAR, "running"),
        ("running", 2.5 * BAR + timedelta(seconds=31), "stale"),
        ("stopped", timedelta(days=9), "stopped"),
    ],
)
def test_an_engine_is_stale_after_two_and_a_half_bars_unless_it_stopped(
    tmp_path: Path, state: str, late: timedelta, expected: str
) -> None:
    write(tmp_path, state=state, updated=NOW)
    (engine,) = LiveEngines(tmp_path, (0.55, 0.45), clock=lambda: NOW + late).all()
    assert engine.state == expected


def test_an_engine_follows_its_key_unless_it_is_pinned_or_stopped(tmp_path: Path) -> None:
    write(tmp_path, updated=NOW)
    write(tmp_path, symbol="ETHUSDT", updated=NOW, pinned_model_id="x")
    write(tmp_path, symbol="SOLUSDT", updated=NOW, state="stopped")
    engines = LiveEngines(tmp_path, (0.55, 0.45), clock=lambda: NOW)
    assert [len(engines.following(symbol, "15m")) for symbol in ("BTCUSDT", "ETHUSDT", "SOLUSDT")] == [
        1,
        0,
        0,
    ]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b'{"format": 1, "sym', "is not JSON"),
        (b"[]", "no JSON object"),
        (b'{"format": 2}', "format 2"),
        (b'{"format": 1}', "does not say when"),
        (b'{"format": 1, "updated": "never"}', "does not say when"),
    ],
)
def test_a_snapshot_that_cant_be_read_is_shown_as_such(
    tmp_path: Path, open_lab: OpenLab, content: bytes, why: str
) -> None:
    write(tmp_path / "live", updated=datetime.now(UTC))
    (tmp_path / "live" / "AAA_15m.json").write_bytes(content)
    lab = open_lab(lab_settings(tmp_path))
    broken, whole = lab.json("/api/ml/live")["engines"]
    assert (broken["name"], broken["state"], whole["state"]) == ("AAA_15m", "unreadable", "running")
    assert why in broken["text"]


def test_odd_values_in_a_snapshot_are_none(tmp_path: Path, open_lab: OpenLab) -> None:
    (tmp_path / "live").mkdir()
    (tmp_path / "live" / "X_odd.json").write_text(
        '{"format": 1, "updated": "2026-01-01T00:00:00", "timeframe": "odd", "equity": NaN, "recent": [3, {}],'
        ' "counts": 7, "signals": "x", "used_model_id": ""}'
    )
    lab = open_lab(lab_settings(tmp_path))
    found = lab.json("/api/ml/live/X_odd")
    assert (found["equity"], found["recent"], found["used_model_id"]) == (None, [], None)
    assert found["stale_after"] is None
    missing = lab.get("/api/ml/live/nobody")
    assert (missing.status_code, missing.json()["reason"]) == (404, "UNKNOWN_ENGINE")


def test_an_engine_that_does_not_say_what_it_trades_by_is_drawn_by_the_configuration(
    tmp_path: Path, open_lab: OpenLab
) -> None:
    values = json.loads(snapshot(updated=datetime.now(UTC)).to_json())
    del values["rules"]
    (tmp_path / "live").mkdir()
    (tmp_path / "live" / "BTCUSDT_15m.json").write_text(json.dumps(values))
    (found,) = open_lab(lab_settings(tmp_path)).json("/api/ml/live")["engines"]
    assert (found["proba_entry"], found["proba_exit"]) == (0.55, 0.45)
