"""Empty, broken, and with the server away: each page says what is so and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect

from signalserve.registry import init_registry
from tests.lab.conftest import OpenLab, Workshop, lab_settings
from tests.lab.pages.conftest import Visit, World
from tests.lab.pages.snapshots import write_snapshot

TOP = ("/", "/compare", "/history", "/live", "/events", "/server")


@pytest.mark.parametrize("made", [False, True])
def test_an_empty_registry_says_what_to_do_next(
    tmp_path: Path, open_lab: OpenLab, visit: Visit, made: bool
) -> None:
    if made:
        init_registry(tmp_path / "ml_models")
    lab = open_lab(lab_settings(tmp_path))
    page = visit(lab, "/")
    expect(page.locator("main")).to_contain_text("signalserve train --symbol")
    for path, words in (
        ("/compare", "signalserve train"),
        ("/history", "signalserve train"),
        ("/live", "signalserve live"),
        ("/events", "Nothing has happened yet"),
        ("/server", "signalserve serve"),
    ):
        page.goto(path)
        expect(page.locator("main")).to_contain_text(words)


def test_with_the_server_away_the_rest_goes_on(workshop: Workshop, open_lab: OpenLab, visit: Visit) -> None:
    lab = open_lab(workshop.settings())
    page = visit(lab, "/server")
    expect(page.locator("main")).to_contain_text("The server is away")
    expect(page.locator("main")).to_contain_text("signalserve serve")
    page.goto("/")
    expect(page.locator("table.models tbody tr")).to_have_count(2)
    expect(page.get_by_text("not known").first).to_be_visible()
    for path in (f"/models/{workshop.champion}", *TOP[1:]):
        page.goto(path)
        expect(page.locator("#server-pill")).to_contain_text("away")


def test_a_log_that_is_no_chain_is_said_on_every_page(
    workshop: Workshop, tmp_path: Path, open_lab: OpenLab, visit: Visit
) -> None:
    here = workshop.copied_to(tmp_path / "home")
    log = here.folder / "ml_models" / "registry_events.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(lines[0].replace(b"register", b"promoted", 1) + b"".join(lines[1:]))
    page = visit(open_lab(here.settings()), "/events", expected=(503,))
    expect(page.locator(".chain")).to_contain_text("chain is broken")
    for path in ("/", "/history", "/compare"):
        page.goto(path)
        expect(page.get_by_role("heading", name="Service Unavailable")).to_be_visible()
        expect(page.locator("main")).to_contain_text("reason")
    page.goto("/server")
    expect(page.locator("main")).to_contain_text("It can't be read")
    page.goto("/live")
    expect(page.locator("h1")).to_have_text("Live")


def test_a_half_written_index_hides_nothing_and_lists_what_it_can_not_read(
    workshop: Workshop, tmp_path: Path, open_lab: OpenLab, visit: Visit
) -> None:
    here = workshop.copied_to(tmp_path / "home")
    index = here.folder / "ml_models" / "registry_index.csv"
    index.write_text(index.read_text() + "half,a,row\n")
    page = visit(open_lab(here.settings()), "/")
    expect(page.locator(".notice.warn", has_text="registry has warnings")).to_contain_text(
        "registry_index.csv"
    )
    expect(page.get_by_role("link", name=here.champion, exact=True)).to_be_visible()


def test_a_stale_engine_and_a_snapshot_that_is_none_are_marked(
    workshop: Workshop, tmp_path: Path, open_lab: OpenLab, visit: Visit
) -> None:
    here = workshop.copied_to(tmp_path / "home")
    write_snapshot(here.folder / "live", "SYNTH_15m", here.champion, here.champion, stale=True)
    (here.folder / "live" / "OTHER_1h.json").write_text('{"format": 1, "symb')
    page = visit(open_lab(here.settings()), "/live")
    expect(page.locator("tr", has_text="SYNTH_15m").locator(".badge.bad").first).to_have_text("stale")
    expect(page.locator("tr", has_text="OTHER_1h").locator(".badge.bad").first).to_have_text("unreadable")


def test_many_engines_are_a_table_and_one_of_them_is_drawn(
    tmp_path: Path, open_lab: OpenLab, visit: Visit
) -> None:
    for number in range(12):
        write_snapshot(tmp_path / "live", f"S{number}_15m", "before", "after")
    page = visit(open_lab(lab_settings(tmp_path)), "/live")
    expect(page.locator("table.cards tbody tr")).to_have_count(12)
    expect(page.locator("figure.chart")).to_have_count(0)
    page.get_by_role("link", name="S7_15m", exact=True).click()
    expect(page.locator("figure.chart .plot[data-drawn]")).to_have_count(1)
    expect(page.get_by_role("heading", name="S7_15m")).to_be_visible()


def test_an_error_is_a_page_for_people_and_a_problem_for_programs(world: World, visit: Visit) -> None:
    page = visit(world.lab, "/nowhere", expected=(404, 422))
    expect(page.get_by_role("heading", name="Not Found")).to_be_visible()
    page.goto("/models/no-such-model")
    expect(page.locator("main")).to_contain_text("no-such-model")
    page.goto("/?page=zero")
    expect(page.locator("main")).to_contain_text("page")
    browser = {"Accept": "text/html,*/*;q=0.8"}
    for path, headers in (("/nowhere", {}), ("/api/nowhere", browser)):
        answer = world.lab.get(path, headers=headers)
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


def test_a_fault_of_ours_is_a_page_with_an_incident_and_no_text_of_it(
    workshop: Workshop, open_lab: OpenLab, visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> object:
        raise RuntimeError("a secret of the code")

    lab = open_lab(workshop.settings())
    monkeypatch.setattr(type(lab.app.state.lab.catalogue), "page", fails)
    page = visit(lab, "/", expected=(500,))
    expect(page.locator("main")).to_contain_text("Incident")
    assert "secret" not in page.content()


def test_a_model_without_a_backtest_says_which_command_makes_one(
    workshop: Workshop, tmp_path: Path, open_lab: OpenLab, visit: Visit
) -> None:
    here = workshop.copied_to(tmp_path / "home")
    lab = open_lab(here.settings(backtest={"output_dir": tmp_path / "none"}))
    page = visit(lab, f"/models/{here.champion}")
    expect(page.locator("main")).to_contain_text(
        "signalserve backtest --symbol SYNTH --timeframe 15m --model-id"
    )
    page.goto(f"/compare?model={here.challenger}&model={here.champion}")
    expect(page.locator("main")).to_contain_text(f"no backtest of {here.challenger}")
