"""The audit log: newest first, filtered and cut into pages here, with the proof of its chain."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from signalserve.lab.app import lab_of
from signalserve.lab.audit import EventQuery
from signalserve.registry import Promotion
from tests.lab.conftest import OpenLab, Workshop, lab_settings
from tests.registries import registry_at

EVENTS = "/api/ml/events"


@pytest.fixture
def busy(base: Path) -> Path:
    """Five events of two people."""
    registry = registry_at(base)
    registry.promote([Promotion("eth2")], reason="Ether looks good", actor="ops:alice", via="rpc")
    return base


def test_the_newest_goes_first_and_pages_are_cut_here(busy: Path, tmp_path: Path, open_lab: OpenLab) -> None:
    lab = open_lab(lab_settings(tmp_path))
    found = lab.json(EVENTS, per_page=2)
    assert [row["revision"] for row in found["rows"]] == [5, 4]
    assert (found["total"], found["pages"]) == (5, 3)
    assert [row["revision"] for row in lab.json(EVENTS, per_page=2, page=3)["rows"]] == [1]
    assert found["rows"][0]["time"].endswith("Z")
    assert "ops:alice" in found["actors"]


@pytest.mark.parametrize(
    ("params", "revisions"),
    [
        ({"symbol": "ETH-PERP_X"}, [5, 3]),
        ({"timeframe": "15m", "action": "register"}, [2, 1]),
        ({"model_id": "btc0"}, [4, 1]),
        ({"action": "promote"}, [5, 4]),
        ({"actor": "ALICE"}, [5]),
        ({"text": "ether GOOD"}, [5]),
        ({"text": "ether bad"}, []),
    ],
)
def test_filters(
    busy: Path, tmp_path: Path, open_lab: OpenLab, params: dict[str, str], revisions: list[int]
) -> None:
    found = open_lab(lab_settings(tmp_path)).json(EVENTS, **params)
    assert [row["revision"] for row in found["rows"]] == revisions


def test_an_event_opens_to_what_the_decision_read(workshop: Workshop, open_lab: OpenLab) -> None:
    lab = open_lab(workshop.settings())
    (row,) = lab.json(EVENTS, action="evaluate")["rows"]
    found = lab.json(f"{EVENTS}/{row['revision']}")
    (decision,) = found["decisions"]
    assert (decision["model_id"], decision["champion"]) == (workshop.challenger, workshop.champion)
    assert decision["policy"]["min_bars"] == 100
    assert decision["evidence"]["bars"] > 100
    better = next(rule for rule in decision["rules"] if rule["name"] == "better")
    assert better["bound"] == pytest.approx(0.9)  # 0.8 at one look; the champion's training was another
    assert row["outcome"] in ("passed", f"refused by {', '.join(decision['failed'])}")
    missing = lab.get(f"{EVENTS}/99")
    assert (missing.status_code, missing.json()["reason"]) == (404, "UNKNOWN_REVISION")


def test_a_backtest_is_listed_with_its_model_and_the_bars_that_it_looked_at(
    busy: Path, tmp_path: Path, open_lab: OpenLab
) -> None:
    span = ("2026-02-01T00:00:00+00:00", "2026-03-01T00:00:00+00:00")
    registry_at(busy).record_look("btc0", *span, rules={"fee_bps": 5.0})
    lab = open_lab(lab_settings(tmp_path))
    (row,) = lab.json(EVENTS, action="look", model_id="btc0")["rows"]
    assert (row["subjects"], row["outcome"]) == (["btc0"], f"backtest over {span[0]} to {span[1]}")
    page = lab.get("/events?action=look").text
    assert row["outcome"] in page


def test_the_chain_is_proven_and_its_head_is_the_newest_hash(
    busy: Path, tmp_path: Path, open_lab: OpenLab
) -> None:
    lab = open_lab(lab_settings(tmp_path))
    found = lab.json(f"{EVENTS}/chain")
    last = json.loads((busy / "registry_events.jsonl").read_text().splitlines()[-1])
    assert (found["state"], found["head"], found["events"]) == ("valid", last["hash"], 5)
    index = busy / "registry_index.csv"
    index.write_text(index.read_text().replace("success", "archived"))
    edited = lab.json(f"{EVENTS}/chain")
    assert (edited["state"], "edited outside" in edited["problems"][0]) == ("broken", True)


def test_events_that_come_are_read_on_and_a_replaced_log_is_read_anew(base: Path, tmp_path: Path) -> None:
    audit = lab_of(lab_settings(tmp_path)).audit
    assert audit.page(EventQuery()).total == 4
    registry_at(base).promote([Promotion("btc1")])
    assert audit.page(EventQuery()).rows[0].revision == 5
    log = base / "registry_events.jsonl"
    aside = log.with_suffix(".aside")
    aside.write_text("".join(line + "\n" for line in log.read_text().splitlines()[:2]))
    aside.rename(log)
    assert audit.page(EventQuery()).total == 2
