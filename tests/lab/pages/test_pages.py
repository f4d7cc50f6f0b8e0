"""Every page opens, in light and dark, on a desk and on a phone, without a fault that the browser sees."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from axe_core_python.base import AXE_FILE_PATH
from playwright.sync_api import Browser, Page, expect

from tests.lab.pages.conftest import PAGES, Visit, World, drawn

NO_SCROLL = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
PHONE = {"width": 390, "height": 844}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_opens_without_a_fault_and_draws_its_charts(world: World, visit: Visit, name: str) -> None:
    page = drawn(visit(world.lab, world.paths()[name]))
    expect(page.locator("h1")).to_be_visible()
    assert page.evaluate(NO_SCROLL)
    # in the other colours the charts are drawn anew
    page.locator("#theme-toggle").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.set_viewport_size(PHONE)
    page.reload()
    assert drawn(page).evaluate(NO_SCROLL), "it scrolls sideways at 390 pixels"


@pytest.mark.parametrize("name", [*PAGES, "login", "error", "dialog"])
def test_a_page_has_no_serious_barrier_in_light_and_dark(world: World, browser: Browser, name: str) -> None:
    paths = world.paths() | {"login": "/login", "error": "/nowhere", "dialog": f"/models/{world.challenger}"}
    with browser.new_context(base_url=world.lab.address, bypass_csp=True, color_scheme="light") as context:
        form = {"token": world.lab.tokens["ops"]}
        context.request.post("/login", form=form, headers={"Origin": world.lab.address})
        page = context.new_page()
        page.goto(paths[name])
        if name == "dialog":
            page.get_by_role("link", name="Promote …").click()
            expect(page.get_by_role("dialog")).to_be_visible()
        drawn(page).add_script_tag(path=AXE_FILE_PATH)
        assert barriers(page) == []
        # of the other colours only the contrast differs
        page.emulate_media(color_scheme="dark")
        assert barriers(page, "{runOnly: ['color-contrast']}") == []
        page.set_viewport_size(PHONE)
        assert barriers(page) == []


def barriers(page: Page, options: str = "{}") -> list[str]:
    """What axe finds that is serious or worse: the rule, and where. A chart is one image, whatever it is drawn of."""
    found = page.evaluate(f"axe.run({{exclude: ['.plot > *']}}, {options})")
    return [
        f"{item['id']}: {node['html'][:160]} {node.get('failureSummary', '')[:200]}"
        for item in found["violations"]
        if item["impact"] in ("serious", "critical")
        for node in item["nodes"]
    ]


def test_the_chosen_colours_stay_and_are_there_before_anything_is_painted(world: World, visit: Visit) -> None:
    page = visit(world.lab, "/", color_scheme="light")
    page.locator("#theme-toggle").click()
    page.goto("/events")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    # the script that sets it stands before every style and blocks
    scripts = page.locator("head script").evaluate_all("(all) => all.map((one) => one.src)")
    assert scripts[0].endswith("theme.js")


def test_the_keyboard_reaches_the_content_first(world: World, visit: Visit) -> None:
    page = visit(world.lab, "/")
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()


def test_a_dialog_traps_the_focus_and_closes_with_escape(world: World, visit: Visit) -> None:
    page = visit(world.lab, f"/models/{world.challenger}")
    page.get_by_role("link", name="Promote …").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    for _ in range(12):
        page.keyboard.press("Tab")
        assert page.evaluate(
            "document.activeElement === document.body || !!document.activeElement.closest('dialog')"
        )
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()


def test_importances_show_twenty_and_all_on_demand(world: World, visit: Visit) -> None:
    page = drawn(visit(world.lab, f"/models/{world.challenger}"))
    figure = page.locator("figure[data-chart=importances]")
    expect(figure.locator(".bars .point")).to_have_count(20)
    figure.get_by_role("button", name="Show all").click()
    expect(figure.locator(".bars .point")).to_have_count(40)


def test_the_history_shows_another_metric(world: World, visit: Visit) -> None:
    page = drawn(visit(world.lab, "/history/SYNTH/15m"))
    figure = page.locator("figure[data-chart=history]")
    figure.get_by_role("combobox", name="Metric").select_option("auc")
    expect(figure.locator(".g-ytitle")).to_have_text("AUC (labelled bars)")


def test_a_name_that_is_html_is_shown_as_it_is(world: World, visit: Visit) -> None:
    page = visit(world.lab, "/?text=onerror")
    link = page.get_by_role("link", name="<img src=x onerror=alert(1)>")
    expect(link).to_have_count(1)
    link.click()
    expect(page.locator("h1")).to_have_text("<img src=x onerror=alert(1)>")
    assert page.locator("main img").count() == 0


def test_a_name_in_a_chart_is_no_markup(own_world: Callable[..., World], visit: Visit) -> None:
    world = own_world()
    path = world.base / world.challenger / "feature_importances.csv"
    lines = path.read_text().splitlines()
    share = lines[1].rpartition(",")[2]
    lines[1] = f"<a href='https://evil.example/x'>click</a> %{{x}} <b>bold</b>,{share}"
    path.write_text("\n".join(lines) + "\n")
    page = drawn(visit(world.lab, f"/models/{world.challenger}"))
    plot = page.locator("figure[data-chart=importances] .plot")
    expect(plot).to_contain_text("<b>bold</b>")
    assert plot.locator("a").count() == 0
