"""Without any script the pages have their content, and a decision can be made."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import expect

from tests.lab.pages.conftest import PAGES, Visit, World, status_of
from tests.lab.pages.test_decisions import EASY


def test_every_page_has_its_content_and_each_chart_its_text(world: World, visit: Visit) -> None:
    page = visit(world.lab, "/", java_script_enabled=False)
    for name in PAGES:
        page.goto(world.paths()[name])
        expect(page.locator("h1")).to_be_visible()
        expect(page.locator("#theme-toggle")).to_be_hidden()
        for figure in page.locator("figure.chart").all():
            expect(figure.locator(".plot")).to_be_hidden()
            figure.locator("summary").click()
            expect(figure.locator(".alternative-body")).to_be_visible()
            assert figure.locator(".alternative-body").inner_text().strip()


def test_a_model_is_promoted(own_world: Callable[..., World], visit: Visit) -> None:
    world = own_world(**EASY)
    page = visit(world.lab, f"/models/{world.challenger}", java_script_enabled=False)
    page.get_by_role("link", name="Promote …").click()
    page.get_by_label("Reason").fill("by hand")
    page.get_by_role("button", name="Promote", exact=True).click()
    expect(page.locator("#done")).to_contain_text("The server serves it")
    assert status_of(world, world.challenger) == "production"


def test_the_live_page_says_when_it_was_made(world: World, visit: Visit) -> None:
    page = visit(world.lab, "/live", java_script_enabled=False)
    expect(page.locator(".head")).to_contain_text("Made 20")
    assert "load the page again" in page.locator(".head").inner_html()
