"""The gRPC server's status: what it serves, or that it is away, which is an answer and no error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from signalserve.config.settings import Settings
from signalserve.lab import server as lab_server
from signalserve.lab.server import ServerLink
from tests.lab.conftest import OpenLab, free_target, lab_settings
from tests.server.conftest import server_process
from tests.server.wire.conftest import Server


def test_what_it_serves(
    base: Path, tmp_path: Path, serve: Callable[[Settings], Server], open_lab: OpenLab
) -> None:
    server = serve(lab_settings(tmp_path))
    found = open_lab(lab_settings(tmp_path, client={"target": server.target})).json("/api/ml/server")
    assert (found["state"], found["revision"], found["seen_revision"]) == ("serving", 4, 4)
    (model,) = found["models"]
    assert (model["symbol"], model["model_id"], model["engine"]) == ("BTCUSDT", "btc0", "onnx")
    assert found["started"].endswith("Z")
    assert found["failures"] == []


def test_one_that_is_away_is_a_state_and_the_pages_go_on(
    base: Path, tmp_path: Path, open_lab: OpenLab
) -> None:
    lab = open_lab(lab_settings(tmp_path))
    found = lab.json("/api/ml/server")
    assert (found["state"], found["revision"], found["models"]) == ("away", None, [])
    assert "signalserve serve" in found["text"] and found["target"] in found["text"]
    assert lab.json("/api/ml/models")["total"] == 3


def test_one_that_hangs_costs_a_page_the_deadline_once(tmp_path: Path) -> None:
    import socket

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        link = ServerLink(f"127.0.0.1:{silent.getsockname()[1]}", deadline_ms=50)
        first = link.status()
        assert (first.state, link.status() is first) == ("away", True)
        link.close()


def test_one_that_comes_back_is_seen(
    base: Path,
    tmp_path: Path,
    serve: Callable[[Settings], Server],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lab_server, "AWAY_SECONDS", 0.0)
    target = free_target()
    link = ServerLink(target, deadline_ms=500)
    assert link.status().state == "away"
    link.target = serve(lab_settings(tmp_path)).target
    link.close()
    while link.status().state == "away":  # it is asked again in the background
        pass
    assert link.status().state == "serving"
    assert link.status().serves("btc0") is True
    link.close()


def test_an_address_that_is_none_is_said() -> None:
    found = ServerLink("127.0.0.1:99999").status()
    assert (found.state, "99999" in found.text) == ("away", True)


def test_every_worker_of_every_server_is_found(base: Path, tmp_path: Path, open_lab: OpenLab) -> None:
    with server_process(base, tmp_path / "log", "--workers", "2") as (_, target):
        away = free_target()
        lab = open_lab(lab_settings(tmp_path, client={"target": target}, lab={"servers": (away,)}))
        known: set[int] = set()
        while len(known) < 2:  # a connection goes to either of them
            found = lab.json("/api/ml/server/processes")["processes"]
            known |= {item["process_id"] for item in found if item["target"] == target}
        assert {item["state"] for item in found if item["target"] == target} == {"serving"}
        (other,) = [item for item in found if item["target"] == away]
        assert (other["state"], other["process_id"]) == ("away", None)
        page = lab.get("/server", headers={"Accept": "text/html"}).text
        assert "Every process" in page
        assert away in page
