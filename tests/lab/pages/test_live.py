"""The live page moves by itself while an engine trades."""

from __future__ import annotations

import threading
from collections.abc import Callable

from playwright.sync_api import expect

from signalserve.client import SignalClient
from signalserve.config.settings import Settings
from signalserve.live.bars import CsvReplay
from signalserve.live.bootstrap import build_engine
from signalserve.live.served_model import choose_pipeline, served_model
from signalserve.trading.rules import TradingRules
from tests.lab.pages.conftest import Visit, World, drawn


def test_it_changes_at_each_bar_without_being_loaded_again(
    own_world: Callable[..., World], visit: Visit
) -> None:
    world = own_world()
    page = visit(world.lab, "/live")
    expect(page.locator("main")).to_contain_text("No live engine has left a snapshot yet")
    expect(page.locator("#moving")).to_contain_text("moves by itself")
    page.evaluate("window.untouched = true")

    go_on = threading.Semaphore(0)
    bars = CsvReplay(world.folder / "SYNTH_15m.csv", timeframe="15m", last=40)
    with SignalClient(world.server.target, world.lab.tokens["predict"], deadline_ms=20_000) as client:
        engine = build_engine(
            client,
            bars,
            choose_pipeline(served_model(client, "SYNTH", "15m")).pipeline,
            "SYNTH",
            "15m",
            rules=TradingRules.of(Settings().trading),
            starting_equity=10_000.0,
            deadline_ms=20_000,
            snapshot_dir=world.folder / "live",
            on_bar=lambda record: go_on.acquire(),
        )
        thread = threading.Thread(target=engine.run, name="replay")
        thread.start()
        try:
            row = page.locator("table.cards tr", has_text="SYNTH_15m")
            seen = []
            for _ in range(3):
                for _ in range(5):
                    go_on.release()
                bar = row.locator('[data-label="Last bar"]')
                expect(bar).not_to_have_text(seen[-1] if seen else "–")  # noqa: RUF001 - as shown
                seen.append(bar.inner_text())
            expect(row).to_contain_text(world.champion)
            drawn(page)
        finally:
            for _ in range(40):
                go_on.release()
            thread.join()
    expect(page.locator("table.cards tr", has_text="SYNTH_15m")).to_contain_text("stopped")
    # text and chart come of the same answer, and the page was never loaded again
    drawn_to = page.evaluate("document.querySelector('figure[data-chart=live] .plot').data[0].x.at(-1)")
    assert (
        drawn_to[:16].replace("T", " ") == row.locator('[data-label="Last bar"]').inner_text().split("\n")[-1]
    )
    assert page.evaluate("window.untouched")
