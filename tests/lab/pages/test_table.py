"""The table of models: filters, order, pages, choice, and 5,000 of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import expect

from tests.lab.conftest import OpenLab, lab_settings
from tests.lab.pages.conftest import Visit, World
from tests.registries import registry_at


def test_it_filters_sorts_and_leads_on(world: World, visit: Visit) -> None:
    page = visit(world.lab, "/")
    rows = page.locator("table.models tbody tr")
    expect(rows).to_have_count(4)
    page.get_by_label("Symbol").select_option("SYNTH")
    page.get_by_role("button", name="Filter").click()
    expect(rows).to_have_count(2)
    page.get_by_role("link", name="Sharpe").click()
    header = page.get_by_role("columnheader", name="Sharpe")
    expect(header).to_have_attribute("aria-sort", "descending")
    expect(rows).to_have_count(2)
    page.get_by_role("link", name="Sharpe").click()
    expect(header).to_have_attribute("aria-sort", "ascending")
    numbers = [float(text.split()[0]) for text in page.locator('td[data-label="Sharpe"]').all_inner_texts()]
    assert numbers == sorted(numbers)
    page.get_by_role("searchbox").fill("no such model")
    page.get_by_role("button", name="Filter").click()
    expect(page.get_by_role("heading", name="No model passes these filters")).to_be_visible()


def test_what_serves_and_what_is_broken_is_said_in_words(world: World, visit: Visit) -> None:
    page = visit(world.lab, "/")
    serving = page.locator("tr", has=page.get_by_role("link", name=world.champion, exact=True))
    expect(serving.get_by_text("serving", exact=True)).to_be_visible()
    broken = page.locator("tr", has=page.get_by_role("link", name="broken", exact=True))
    expect(broken.locator(".badge.bad")).to_have_text("broken")
    expect(broken.locator(".why")).not_to_be_empty()


def test_two_chosen_models_are_compared(world: World, visit: Visit) -> None:
    page = visit(world.lab, "/?symbol=SYNTH")
    compare = page.get_by_role("button", name="Compare")
    expect(compare).to_be_disabled()
    for model_id in (world.champion, world.challenger):
        page.get_by_label(f"Choose {model_id}").check()
    expect(page.locator("#selected")).to_have_text("2 models chosen")
    compare.click()
    expect(page.get_by_role("heading", name="Equity on the same bars")).to_be_visible()


def test_the_chooser_leads_from_a_key_to_champion_and_challenger(world: World, visit: Visit) -> None:
    page = visit(world.lab, "/compare?key=SYNTH/15m")
    expect(page.locator("thead").first).to_contain_text(f"Challenger{world.challenger}")
    expect(page.locator("thead").first).to_contain_text(f"Champion{world.champion}")


def test_five_thousand_models_are_sorted_and_paged_on_the_server(
    tmp_path: Path, open_lab: OpenLab, visit: Visit
) -> None:
    base = tmp_path / "ml_models"
    base.mkdir()
    lines = ["model_id,symbol,timeframe,model_type,created_at,path,cum_return,sharpe,status"]
    lines += [f"m{n:04},S{n % 50},15m,rf,2026-01-01T00:00:00Z,,0.1,{n},success" for n in range(5_000)]
    (base / "registry_index.csv").write_text("\n".join(lines) + "\n")
    lab = open_lab(lab_settings(tmp_path))
    page = visit(lab, "/?sort=sharpe")
    expect(page.locator(".pager").first).to_contain_text("1 to 50 of 5,000 models")
    expect(page.locator("table.models tbody tr").first).to_contain_text("m4999")
    page.get_by_role("link", name="next").first.click()
    expect(page.locator(".pager").first).to_contain_text("page 2 of 100")


def test_the_table_says_when_the_registry_has_changed(own_world: Callable[..., World], visit: Visit) -> None:
    world = own_world()
    page = visit(world.lab, "/")
    expect(page.locator("#changed")).to_be_hidden()
    registry_at(world.base).archive([world.challenger], reason="meanwhile")
    expect(page.locator("#changed")).to_be_visible()
    page.get_by_role("link", name="Load it anew").click()
    expect(page.locator("tr", has_text=world.challenger)).to_contain_text("archived")
