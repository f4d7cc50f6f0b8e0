"""What each page is for is on it: its charts with their data, and its words."""

from __future__ import annotations

import csv
import html
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.lab.pages.conftest import Visit, World, drawn
from tests.lab.pages.snapshots import write_snapshot

CONTENTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "model": (
        ("equity", "importances", "calibration", "interval"),
        (
            "What the gate says", "deflated_sharpe", "Backtest", "Feature importances", "Calibration",
            "Confusion at the thresholds", "Metrics of the training", "Provenance", "Golden rows", "Digest",
            "Training span", "Seeds", "Its events", "meta.json, whole", "±", "AUC (all bars)", "AUC (labelled bars)",
            "Walk-forward: 20", "Timing is skill timing its positions came at the right time", "Same market same_bars",
            "P(timing is skill)", "90% of their copies at other times", "Walk-forward folds: 20", "the best of 2 that",
            "looks at these bars", "that their future chose",
        ),
    ),
    "compare": (
        ("overlay", "distribution", "timing"),
        ("What the gate says of the challenger", "Better, or lucky?",
         "P(timing is skill)", "copies", "In what they differ", "Sharpe ratio",
         "±", "AUC (all bars)"),
    ),
    "history": (("history", "grid"), ("promote", "SYNTH_15m")),
    "live": (("live",), ("Model in use", "Probability", "Equity", "p50", "Errors", "stale", "running")),
    "events": ((), ("chain", "register", "evaluate", "promote", "Head")),
    "event": ((), ("register", "Hash", "local:")),
    "server": ((), ("Revision served", "Revision seen", "What it serves", "onnx", "The registry that the lab reads")),
    "promote": ((), ("In production now", "Live engines that follow this key now", "SYNTH_15m", "Reason")),
    "rollback": ((), ("SYNTH/15m",)),
    "archive": ((), ("Reason", "nothing in production")),
    "models": ((), ("Sharpe", "Cum. return", "Age", "Engine", "Serving now", "serving", "broken", "Archive …")),
}  # fmt: skip


def page_of(world: World, path: str, role: str = "ops") -> str:
    """A page's HTML, as whoever has the role gets it."""
    own = {"Origin": world.lab.address}
    answer = world.lab.http.post("/login", data={"token": world.lab.tokens[role]}, headers=own)
    cookie = answer.headers["set-cookie"].partition(";")[0]
    world.lab.http.cookies.clear()
    found = world.lab.get(path, headers={"Cookie": cookie})
    assert found.status_code == 200, found.text
    return found.text


def charts_of(page: str) -> dict[str, Any]:
    """The data of each chart, by its kind; the first of several."""
    found = re.findall(
        r'data-chart="(\w+)".*?<script type="application/json">(.*?)</script>', page, flags=re.DOTALL
    )
    return {kind: json.loads(data) for kind, data in reversed(found)}


@pytest.mark.parametrize("name", CONTENTS)
def test_a_page_has_what_it_is_for(world: World, name: str) -> None:
    kinds, words = CONTENTS[name]
    page = page_of(world, world.paths()[name])
    text = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())
    assert set(charts_of(page)) == set(kinds)
    assert [word for word in words if word not in text] == []


def test_the_equity_is_the_backtests_with_its_trades_marked(world: World, visit: Visit) -> None:
    path = world.paths()["model"]
    data = charts_of(page_of(world, path))["equity"]
    (folder,) = (world.folder / "backtests").glob(f"{world.challenger}_*")
    with (folder / "equity.csv").open() as file:
        rows = list(csv.DictReader(file))
    with (folder / "trades.csv").open() as file:
        trades = list(csv.DictReader(file))
    assert data["equity"][-1] == pytest.approx(float(rows[-1]["equity"]), abs=0.01)
    ratio = float(rows[-1]["close"]) / float(rows[0]["close"])
    assert data["buy_hold"][-1] / data["buy_hold"][0] == pytest.approx(ratio, rel=0.01)
    assert min(data["drawdown"]) == pytest.approx(
        -100 * max(float(row["drawdown"]) for row in rows), abs=0.01
    )
    assert len(data["trades"]) == len(trades) > 0
    page = drawn(visit(world.lab, path))
    names = page.locator("figure[data-chart=equity] .plot").evaluate(
        "(plot) => plot.data.map((one) => one.name)"
    )
    assert {"Buy and hold", "Entry", "Exit", "Model"} <= set(names)


def test_the_distribution_has_every_draw_and_what_was_observed(world: World) -> None:
    data = charts_of(page_of(world, world.paths()["compare"]))["distribution"]
    assert sum(data["counts"]) == 2_000
    assert data["low"] < data["observed"] < data["high"]


def test_the_history_has_its_bands_and_marks_and_the_grid_its_sets(world: World) -> None:
    charts = charts_of(page_of(world, world.paths()["history"]))
    history, grid = charts["history"], charts["grid"]
    assert {model["id"] for model in history["models"]} >= {world.champion, world.challenger}
    assert [band[0] for band in history["bands"]] == [world.champion]
    assert {"promote"} <= {mark["kind"] for mark in history["marks"]}
    assert len(grid["ranks"]) > 1
    assert len(grid["axes"]) > 1


def test_the_live_chart_has_thresholds_bands_and_the_change_of_model(world: World) -> None:
    data = charts_of(page_of(world, world.paths()["live"]))["live"]
    assert (data["entry"], data["exit"]) == (0.55, 0.45)
    assert data["bands"]
    assert {"LONG", "CLOSE"} <= {signal["signal"] for signal in data["signals"]}


def test_a_confirmation_names_the_engines_that_follow_the_key(
    own_world: Callable[..., World], visit: Visit
) -> None:
    world = own_world()
    path = f"/models/{world.challenger}/promote"
    page = visit(world.lab, path)
    expect(page.locator("main")).to_contain_text("No live engine follows this key now")
    write_snapshot(world.folder / "live", "SYNTH_15m", world.champion, world.champion)
    page.reload()
    expect(page.locator("main")).to_contain_text("will trade on what is served: SYNTH_15m")


def test_events_can_be_filtered(world: World, visit: Visit) -> None:
    page = visit(world.lab, "/events")
    page.get_by_label("Action").select_option("promote")
    page.get_by_role("button", name="Filter").click()
    actions = page.locator("tbody tr td[data-label='Action'], tbody tr .action").all_inner_texts()
    assert actions
    assert all("promote" in text for text in actions)
