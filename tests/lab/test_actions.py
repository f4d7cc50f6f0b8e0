"""Promote, rollback and archive through a real gRPC server: down to the registry's file and the served model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from signalserve.config.settings import Settings
from tests.lab.conftest import TOKEN, LabProcess, OpenLab, Workshop, lab_settings
from tests.registries import registry_at
from tests.server.wire.conftest import Server

Serve = Callable[[Settings], Server]


@pytest.fixture
def pair(base: Path, tmp_path: Path, serve: Serve, open_lab: OpenLab) -> tuple[Server, LabProcess]:
    """A server of the small registry, and a lab that asks it."""
    server = serve(lab_settings(tmp_path))
    return server, open_lab(lab_settings(tmp_path, client={"target": server.target}))


def post(lab: LabProcess, action: str, **body: Any) -> Any:
    return lab.http.post(f"/api/ml/{action}", json=body, headers=TOKEN)


def test_a_promote_a_rollback_and_an_archive_reach_the_file_and_the_served_model(
    pair: tuple[Server, LabProcess], base: Path
) -> None:
    server, lab = pair
    assert [row["served"] for row in lab.json("/api/ml/models", sort="model_id", order="asc")["rows"]] == [
        True,
        False,
        False,
    ]
    promoted = post(
        lab,
        "promote",
        models=[{"model_id": "btc1", "expected_production_model_id": "btc0"}],
        reason="weekly",
        request_id="once",
    )
    assert promoted.status_code == 200, promoted.text
    done = promoted.json()
    assert done["transitions"] == [
        {"symbol": "BTCUSDT", "timeframe": "15m", "model_id": "btc1", "previous_model_id": "btc0"}
    ]
    assert (done["served"], done["request_id"], done["registry_revision"]) == (True, "once", 5)
    assert server.serving("BTCUSDT") == "btc1"
    assert "btc1,BTCUSDT,15m,logreg" in (base / "registry_index.csv").read_text()
    assert registry_at(base).entry("btc1").status == "production"
    # a repeat of the same request gets the first answer
    again = post(
        lab,
        "promote",
        models=[{"model_id": "btc1", "expected_production_model_id": "btc0"}],
        reason="weekly",
        request_id="once",
    )
    assert again.json()["registry_revision"] == 5

    back = post(lab, "rollback", keys=[{"symbol": "BTCUSDT", "timeframe": "15m"}], reason="worse")
    assert back.status_code == 200, back.text
    assert server.serving("BTCUSDT") == "btc0"
    gone = post(lab, "archive", model_ids=["btc0"], reason="done with it", allow_unserved=True)
    assert gone.status_code == 200, gone.text
    assert server.serving("BTCUSDT") == ""
    events = lab.json("/api/ml/events")["rows"]
    assert [(row["action"], row["via"], row["reason"]) for row in events[:3]] == [
        ("archive", "lab", "done with it"),
        ("rollback", "lab", "worse"),
        ("promote", "lab", "weekly"),
    ]


@pytest.mark.parametrize(
    ("action", "body", "status", "reason"),
    [
        ("promote", {"models": [{"model_id": "nobody"}]}, 404, "UNKNOWN_MODEL"),
        (
            "promote",
            {"models": [{"model_id": "btc1", "expected_production_model_id": "eth2"}]},
            409,
            "STALE_EXPECTATION",
        ),
        ("promote", {"models": [{"model_id": "btc1"}], "force": True}, 400, "REASON_REQUIRED"),
        ("promote", {"models": [{"model_id": "btc0"}, {"model_id": "btc1"}]}, 400, "DUPLICATE_KEY"),
        ("rollback", {"keys": [{"symbol": "X", "timeframe": "1h"}], "reason": "r"}, 404, "UNKNOWN_KEY"),
        (
            "rollback",
            {"keys": [{"symbol": "BTCUSDT", "timeframe": "15m"}], "reason": "r"},
            409,
            "NOTHING_TO_ROLL_BACK_TO",
        ),
        ("archive", {"model_ids": ["btc0"]}, 409, "IN_PRODUCTION"),
        ("promote", {"models": []}, 422, "INVALID_REQUEST"),
        ("promote", {"models": [{"model_id": "btc1"}], "more": 1}, 422, "INVALID_REQUEST"),
        ("rollback", {"keys": [{"symbol": "BTCUSDT", "timeframe": "15m"}]}, 422, "INVALID_REQUEST"),
    ],
)
def test_a_refusal_keeps_the_servers_reason_and_changes_nothing(
    pair: tuple[Server, LabProcess], base: Path, action: str, body: dict[str, Any], status: int, reason: str
) -> None:
    _, lab = pair
    before = (base / "registry_events.jsonl").read_bytes()
    answer = post(lab, action, **body)
    assert (answer.status_code, answer.json()["reason"]) == (status, reason)
    assert answer.headers["content-type"] == "application/problem+json"
    assert (base / "registry_events.jsonl").read_bytes() == before


def test_the_gate_refuses_with_its_numbers(
    workshop: Workshop, tmp_path: Path, serve: Serve, open_lab: OpenLab
) -> None:
    copy = workshop.copied_to(tmp_path / "copy")
    bounds = {"min_bars": 5_000, "min_trades": 1}
    server = serve(copy.settings(promotion=bounds))
    lab = open_lab(copy.settings(promotion=bounds, client={"target": server.target}))
    answer = post(lab, "promote", models=[{"model_id": copy.challenger}])
    found = answer.json()
    assert (answer.status_code, found["reason"]) == (409, "GATE_REFUSED")
    assert "bars" in found["metadata"]["failed_verdicts"].split(",")
    assert "5000 is asked for" in found["metadata"]["verdict_bars"]
    preview = lab.json("/api/ml/promote/preview", model_id=copy.challenger)
    (step,) = preview["steps"]
    assert (step["previous"]["model_id"], step["judgement"]["allowed"]) == (copy.champion, False)
    forced = post(lab, "promote", models=[{"model_id": copy.challenger}], force=True, reason="we know better")
    assert forced.status_code == 200, forced.text
    assert server.serving("SYNTH") == copy.challenger
    (event,) = lab.json("/api/ml/events", action="promote", model_id=copy.challenger)["rows"]
    assert (event["forced"], event["outcome"].startswith("forced past")) == (True, True)


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Basic eA=="}, {"Authorization": "Bearer"}])
def test_without_a_token_nothing_is_changed(
    pair: tuple[Server, LabProcess], base: Path, headers: dict[str, str]
) -> None:
    _, lab = pair
    for action, body in (
        ("promote", {"models": [{"model_id": "btc1"}]}),
        ("rollback", {"keys": [{"symbol": "BTCUSDT", "timeframe": "15m"}], "reason": "r"}),
        ("archive", {"model_ids": ["btc1"]}),
    ):
        answer = lab.http.post(f"/api/ml/{action}", json=body, headers=headers)
        assert (answer.status_code, answer.json()["reason"]) == (401, "CREDENTIAL_MISSING")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert registry_at(base).state.revision == 4


def test_a_page_of_another_site_can_send_no_change(pair: tuple[Server, LabProcess], base: Path) -> None:
    """What a form or a script without a token may send: text, a form, or JSON under a wrong name."""
    _, lab = pair
    body = '{"model_ids": ["btc1"]}'
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        answer = lab.http.post("/api/ml/archive", content=body, headers={"Content-Type": kind, **TOKEN})
        assert answer.status_code == 422
    preflight = lab.http.options(
        "/api/ml/archive",
        headers={"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"},
    )
    assert preflight.status_code == 405
    assert "access-control-allow-origin" not in preflight.headers
    assert registry_at(base).state.revision == 4


def test_a_server_that_is_away_is_a_503_and_the_registry_stays(
    base: Path, tmp_path: Path, open_lab: OpenLab
) -> None:
    lab = open_lab(lab_settings(tmp_path))
    answer = post(lab, "promote", models=[{"model_id": "btc1"}])
    assert (answer.status_code, answer.json()["reason"]) == (503, "UNAVAILABLE")
    assert registry_at(base).state.revision == 4


def test_previews_say_what_would_change(pair: tuple[Server, LabProcess], base: Path) -> None:
    _, lab = pair
    (step,) = lab.json("/api/ml/promote/preview", model_id="btc1")["steps"]
    assert (step["model"]["model_id"], step["previous"]["model_id"]) == ("btc1", "btc0")
    assert (step["problem"], step["previous"]["served"]) == ("", True)
    same = lab.json("/api/ml/promote/preview", model_id="btc0")
    assert same["steps"][0]["problem"] == "it is in production already"
    (back,) = lab.json("/api/ml/rollback/preview", key="BTCUSDT/15m")["steps"]
    assert "no earlier production model" in back["problem"]
    gone = lab.json("/api/ml/archive/preview", model_id=["btc0", "btc1"])
    assert [step["leaves_unserved"] for step in gone["steps"]] == [True, False]
    assert gone["needs_reason"] is True
    assert registry_at(base).state.revision == 4


def test_a_rollback_of_what_is_not_in_production_any_more_changes_nothing(
    pair: tuple[Server, LabProcess], base: Path
) -> None:
    server, lab = pair
    assert post(lab, "promote", models=[{"model_id": "btc1"}], reason="r").status_code == 200
    keys = [{"symbol": "BTCUSDT", "timeframe": "15m"}]
    stale = post(lab, "rollback", keys=keys, reason="r", expected_production_model_ids=["btc0"])
    assert stale.status_code == 409
    assert "expected btc0 in production, found btc1" in stale.json()["detail"]
    odd = post(lab, "rollback", keys=keys, reason="r", expected_production_model_ids=["btc1", "btc1"])
    assert (odd.status_code, odd.json()["reason"]) == (400, "EXPECTED_MISMATCH")
    assert server.serving("BTCUSDT") == "btc1"
    right = post(lab, "rollback", keys=keys, reason="r", expected_production_model_ids=["btc1"])
    assert right.status_code == 200, right.text
    assert server.serving("BTCUSDT") == "btc0"
