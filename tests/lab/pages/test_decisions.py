"""Promote, rollback and archive in a browser, down to the registry's file and the served model."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from playwright.sync_api import Page, expect

from signalserve.registry import Promotion
from tests.lab.pages.conftest import Visit, World, status_of
from tests.registries import registry_at

Own = Callable[..., World]
EASY = {
    "min_probability": 0.0,
    "min_walk_forward": None,
    "min_deflated_sharpe": 0.0,
    "max_drawdown": 1.0,
    "max_drawdown_ratio": None,
}
HARD = {"min_probability": 1.0}


def promote_link(page: Page) -> None:
    page.get_by_role("link", name="Promote …").click()


def test_a_promote_says_what_will_change_and_is_served(own_world: Own, visit: Visit) -> None:
    world = own_world(**EASY)
    page = visit(world.lab, f"/models/{world.challenger}")
    promote_link(page)
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("SYNTH/15m")
    expect(dialog.get_by_role("columnheader", name="In production now")).to_be_visible()
    expect(dialog.get_by_role("link", name=world.champion)).to_be_visible()
    assert dialog.get_by_role("button", name="Promote with force").count() == 0
    dialog.get_by_label("Reason").fill("better on every bar")
    dialog.get_by_role("button", name="Promote", exact=True).click()
    expect(page.locator("#done")).to_contain_text("Done: promoted")
    expect(page.locator("#done-served")).to_contain_text("The server serves it")
    expect(page.locator(".head")).to_contain_text("better on every bar")
    assert (status_of(world, world.challenger), status_of(world, world.champion)) == (
        "production",
        "archived",
    )
    assert world.server.serving("SYNTH") == world.challenger


def test_a_refusal_shows_its_numbers_and_force_goes_past_it_with_a_reason(
    own_world: Own, visit: Visit
) -> None:
    world = own_world(**HARD)
    page = visit(world.lab, f"/models/{world.challenger}", expected=(409,))
    promote_link(page)
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Promote", exact=True).click()
    expect(dialog.get_by_role("alert")).to_contain_text("The promote gate refuses")
    failed = dialog.locator("tr.failed", has_text="better")
    expect(failed).to_contain_text("≥ 1.000")
    assert status_of(world, world.champion) == "production"
    # the reason is the browser's to ask for, and the lab's where a browser does not
    force = dialog.get_by_role("button", name="Promote with force")
    force.click()
    expect(dialog.get_by_role("alert")).to_be_visible()
    dialog.get_by_label("Why the gate is wrong here").fill("the data was late")
    force.click()
    expect(page.locator("#done")).to_be_visible()
    expect(page.locator("h1")).to_contain_text("forced")
    expect(page.locator("main")).to_contain_text("forced past")
    assert world.server.serving("SYNTH") == world.challenger


def test_a_rollback_brings_back_what_was_before(own_world: Own, visit: Visit) -> None:
    world = own_world(**EASY)
    registry_at(world.base).promote([Promotion(world.challenger)])
    world.server.until(lambda status: any(item.model_id == world.challenger for item in status.models))
    page = visit(world.lab, f"/models/{world.challenger}")
    page.get_by_role("link", name="Roll back …").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("columnheader", name="Comes back")).to_be_visible()
    expect(dialog).to_contain_text(world.champion)
    dialog.get_by_label("Reason").fill("worse live")
    dialog.get_by_role("button", name="Roll back").click()
    expect(page.locator("#done")).to_contain_text("Done: rolled back")
    assert (status_of(world, world.champion), status_of(world, world.challenger)) == (
        "production",
        "archived",
    )
    assert world.server.serving("SYNTH") == world.champion


def test_an_archived_model_is_promoted_by_force_alone(own_world: Own, visit: Visit) -> None:
    world = own_world(**EASY)
    registry_at(world.base).archive([world.challenger], reason="too early")
    page = visit(world.lab, f"/models/{world.challenger}", expected=(409,))
    promote_link(page)
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Promote", exact=True).click()
    expect(dialog.get_by_role("alert")).to_contain_text("is archived, not success or candidate")
    dialog.get_by_label("Why the gate is wrong here").fill("we need it after all")
    dialog.get_by_role("button", name="Promote with force").click()
    expect(page.locator("#done")).to_be_visible()
    assert world.server.serving("SYNTH") == world.challenger


def test_several_are_archived_at_once_and_a_key_is_left_unserved_only_when_that_is_said(
    own_world: Own, visit: Visit
) -> None:
    world = own_world()
    page = visit(world.lab, "/")
    for model_id in (world.champion, world.challenger):
        page.get_by_label(f"Choose {model_id}").check()
    page.get_by_role("button", name="Archive …").click()
    expect(page.get_by_role("heading", name="Archive 2 models")).to_be_visible()
    page.get_by_label("Reason").fill("the desk closes")
    page.get_by_role("button", name="Archive", exact=True).click()
    # the browser asks for the tick first
    expect(page.get_by_role("heading", name="Archive 2 models")).to_be_visible()
    page.get_by_label("Leave SYNTH/15m with nothing in production").check()
    page.get_by_role("button", name="Archive", exact=True).click()
    expect(page.locator("#done")).to_contain_text("Done: archived")
    assert {status_of(world, model_id) for model_id in (world.champion, world.challenger)} == {"archived"}
    assert world.server.serving("SYNTH") == ""


def test_sent_twice_it_is_done_once(own_world: Own, visit: Visit) -> None:
    world = own_world(**EASY)
    page = visit(world.lab, f"/models/{world.challenger}/promote")
    fields = page.locator("form.decide").first.evaluate("(form) => Object.fromEntries(new FormData(form))")
    before = registry_at(world.base).state.revision
    for _ in range(2):
        answer = page.request.post(
            f"/models/{world.challenger}/promote", form=fields, headers={"Origin": world.lab.address}
        )
        assert answer.url.endswith(f"/events/{before + 1}?done=promote"), answer.text()
    assert registry_at(world.base).state.revision == before + 1


def test_what_changed_meanwhile_is_said_and_nothing_is_done(own_world: Own, visit: Visit) -> None:
    world = own_world(**EASY)
    page = visit(world.lab, f"/models/{world.challenger}/promote", expected=(409,))
    registry_at(world.base).archive([world.champion], reason="meanwhile", allow_unserved=True)
    page.get_by_role("button", name="Promote", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("Somebody changed this meanwhile")
    assert status_of(world, world.challenger) == "candidate"


@pytest.mark.parametrize(
    ("role", "words"), [("", "Log in with an ops token"), ("read", "Your role (read) may look, not change")]
)
def test_who_may_not_is_told_why_and_offered_nothing(
    own_world: Own, visit: Visit, role: str, words: str
) -> None:
    world = own_world()
    page = visit(world.lab, f"/models/{world.challenger}", expected=(401, 403), role=role)
    expect(page.locator(".why-not")).to_contain_text(words)
    assert page.get_by_role("link", name="Promote …").count() == 0
    page.goto(f"/models/{world.challenger}/promote")
    assert page.get_by_role("button", name="Promote").count() == 0
    answer = page.request.post(
        f"/models/{world.challenger}/promote", form={"request_id": "x"}, headers={"Origin": world.lab.address}
    )
    assert answer.status in (401, 403)
    assert status_of(world, world.challenger) == "candidate"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://elsewhere.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_form_of_another_site_does_nothing(world: World, headers: dict[str, str]) -> None:
    """The browser sends the session along; the form does not know what the lab's own pages know."""
    path = f"/models/{world.challenger}/promote"
    own = {"Origin": world.lab.address}
    with httpx.Client(base_url=world.lab.address, timeout=30.0) as http:
        assert http.post("/login", data={"token": world.lab.tokens["ops"]}, headers=own).status_code == 303
        page = http.get(path).text
        form = {"request_id": "stolen", "reason": "x", "expected_production_model_id": world.champion}
        assert http.post(path, data=form, headers=headers).status_code == 403
        known = re.search(r'name="csrf" value="([^"]+)"', page)
        assert known is not None
        if headers:  # what it could know does not help it
            assert http.post(path, data=form | {"csrf": known[1]}, headers=headers).status_code == 403
        assert http.post(path, json=form, headers=own).status_code == 403
        assert http.post("/api/ml/promote", json={"models": []}, headers=own).status_code == 403
        assert http.post("/logout", headers=headers).status_code == 403
    assert status_of(world, world.challenger) != "production"


def test_with_the_server_away_an_action_says_so(own_world: Own, visit: Visit) -> None:
    world = own_world(**EASY)
    page = visit(world.lab, f"/models/{world.challenger}/promote", expected=(503, 504))
    request_id = page.locator('form.decide input[name="request_id"]').first.input_value()
    world.server.close()
    page.get_by_role("button", name="Promote", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("The gRPC server")
    # sent again it is the same request, so that what was done is not done twice
    assert page.locator('form.decide input[name="request_id"]').first.input_value() == request_id
    assert status_of(world, world.challenger) == "candidate"


def test_two_who_confirm_the_same_rollback_go_one_model_back(own_world: Own) -> None:
    world = own_world(**EASY)
    registry_at(world.base).promote([Promotion(world.challenger)])
    own = {"Origin": world.lab.address}
    forms = []
    for _ in range(2):
        with httpx.Client(base_url=world.lab.address, timeout=60.0) as http:
            http.post("/login", data={"token": world.lab.tokens["ops"]}, headers=own)
            page = http.get("/rollback?symbol=SYNTH&timeframe=15m").text
            fields = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page))
            forms.append((http.cookies, fields | {"reason": "worse live"}))
    before = registry_at(world.base).state.revision

    def send(form: tuple[httpx.Cookies, dict[str, str]]) -> int:
        with httpx.Client(base_url=world.lab.address, timeout=60.0, cookies=form[0]) as http:
            return http.post("/rollback?symbol=SYNTH&timeframe=15m", data=form[1], headers=own).status_code

    with ThreadPoolExecutor(2) as both:
        assert list(both.map(send, forms)) == [303, 303]
    state = registry_at(world.base).state
    assert state.revision == before + 1
    assert status_of(world, world.champion) == "production"


def test_a_session_that_ended_meanwhile_says_so_and_keeps_what_was_typed(
    own_world: Own, visit: Visit
) -> None:
    world = own_world(**EASY)
    page = visit(world.lab, f"/models/{world.challenger}/promote", expected=(401,))
    page.get_by_label("Reason").fill("a long thought")
    page.context.clear_cookies()
    page.get_by_role("button", name="Promote", exact=True).click()
    expect(page.locator("main")).to_contain_text("Nothing was changed")
    expect(page.locator("main")).to_contain_text("a long thought")
    assert status_of(world, world.challenger) == "candidate"
