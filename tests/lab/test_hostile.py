"""Files and requests that nobody honest makes: one of them is answered in words, and the others as ever."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from signalserve.lab.changes import TooManyError
from signalserve.lab.serving import configured
from tests.lab.conftest import LabProcess, OpenLab, Workshop, lab_settings

DEEP: Any = []
for _ in range(500):
    DEEP = [DEEP]
HTML = {"Accept": "text/html"}


def pages_of(workshop: Workshop) -> tuple[str, ...]:
    return (
        "/", f"/models/{workshop.challenger}", f"/compare?model={workshop.challenger}&model={workshop.champion}",
        "/history", "/history/SYNTH/15m", "/live", "/events", "/server", f"/models/{workshop.challenger}/promote",
        "/api/ml/models", "/api/ml/live", f"/api/ml/models/{workshop.challenger}/backtests",
    )  # fmt: skip


def check_all(lab: LabProcess, paths: tuple[str, ...]) -> None:
    for path in paths:
        answer = lab.get(path, headers={} if path.startswith("/api/") else HTML)
        assert answer.status_code in (200, 503), (path, answer.status_code, answer.text[:300])


def fifo(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path)


PIPES: dict[str, Callable[[Workshop], Path]] = {
    "a backtest": lambda here: here.folder / "backtests" / "zz" / "metrics.json",
    "trades": lambda here: next((here.folder / "backtests").glob("*/trades.csv")),
    "a snapshot": lambda here: here.folder / "live" / "zz.json",
    "a grid": lambda here: (here.folder / "ml_models") / "rf_grid_results_SYNTH_15m_x.csv",
    "metadata": lambda here: (here.folder / "ml_models") / here.challenger / "meta.json",
    "predictions": lambda here: (here.folder / "ml_models") / here.challenger / "oos_predictions.csv",
    "the index": lambda here: (here.folder / "ml_models") / "registry_index.csv",
    "the log": lambda here: (here.folder / "ml_models") / "registry_events.jsonl",
}


@pytest.mark.parametrize("what", PIPES)
def test_a_pipe_in_place_of_a_file_is_waited_for_by_nobody(
    workshop: Workshop, tmp_path: Path, open_lab: OpenLab, what: str
) -> None:
    here = workshop.copied_to(tmp_path / "home")
    fifo(PIPES[what](here))
    check_all(open_lab(here.settings()), pages_of(here))


def test_what_one_file_holds_spoils_no_other_page(
    workshop: Workshop, tmp_path: Path, open_lab: OpenLab
) -> None:
    here = workshop.copied_to(tmp_path / "home")
    bad = here.folder / "backtests" / "bad"
    bad.mkdir()
    (bad / "metrics.json").write_text(json.dumps({"model_id": "other", "metrics": DEEP}))
    live = here.folder / "live"
    live.mkdir(exist_ok=True)
    early = {"format": 1, "symbol": "A", "timeframe": "15m", "updated": "0001-01-01T00:00:00+14:00"}
    (live / "A_15m.json").write_text(json.dumps(early))
    Path(os.fsdecode(os.fsencode(live) + b"/\xff.json")).write_text(json.dumps(early))
    lab = open_lab(here.settings())
    check_all(lab, pages_of(here))
    states = {item["name"]: item["state"] for item in lab.json("/api/ml/live")["engines"]}
    assert states["A_15m"] == "unreadable"


def test_a_name_that_is_no_utf8_spoils_no_page(workshop: Workshop, tmp_path: Path, open_lab: OpenLab) -> None:
    here = workshop.copied_to(tmp_path / "home")
    index = (here.folder / "ml_models") / "registry_index.csv"
    index.write_bytes(index.read_bytes().replace(b",SYNTH,", b",SYN\xffTH,", 1))
    check_all(open_lab(here.settings()), pages_of(here))


def test_a_made_up_token_opens_nothing_that_a_visitor_may_not_see(tmp_path: Path, open_lab: OpenLab) -> None:
    lab = open_lab(lab_settings(tmp_path, lab={"allowed_hosts": ("lab.desk",)}))
    for path in ("/", "/api/ml/models", "/api/ml/events", "/api/ml/stream"):
        for headers in ({}, {"Authorization": "Bearer x"}):
            assert lab.get(path, headers={"Host": "lab.desk", **headers}).status_code == 401, (path, headers)


def test_a_body_that_is_longer_than_it_says_is_not_read(tmp_path: Path, open_lab: OpenLab) -> None:
    address = httpx.URL(open_lab(lab_settings(tmp_path)).address)
    with socket.create_connection((address.host, address.port or 0)) as peer:
        peer.sendall(
            b"POST /api/ml/promote HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
            b"Transfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\n"
        )
        assert b" 411 " in peer.recv(200)


def test_nobody_is_believed_to_be_somewhere_else(tmp_path: Path) -> None:
    assert configured(lambda: None, 1).proxy_headers is False  # type: ignore[arg-type,return-value]


def test_head_is_get_without_the_body(tmp_path: Path, open_lab: OpenLab) -> None:
    lab = open_lab(lab_settings(tmp_path))
    for path in ("/", "/api/ml/models", "/nowhere"):
        head, get = lab.http.head(path), lab.get(path)
        assert (head.status_code, head.content) == (get.status_code, b"")
        assert head.headers["content-type"] == get.headers["content-type"]


def test_one_listener_leaves_room_for_the_others(tmp_path: Path, open_lab: OpenLab) -> None:
    changes = open_lab(lab_settings(tmp_path)).app.state.changes
    with ExitStack() as stack:
        for _ in range(16):
            stack.enter_context(changes.place("a visitor"))
        with pytest.raises(TooManyError):
            changes.check_room("a visitor")
        changes.check_room("an admin")
    changes.check_room("a visitor")
