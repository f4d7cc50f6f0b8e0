"""Log in with a token, see who one is, and out again; a session ends with its token."""

from __future__ import annotations

import re
from collections.abc import Callable

import httpx
import pytest
from cryptography.fernet import Fernet
from playwright.sync_api import expect

from signalserve.access.token_file import TokenFile
from signalserve.lab.pages.login import own_place
from signalserve.lab.sessions import session_key
from tests.lab.pages.conftest import Visit, World

Own = Callable[..., World]


def test_a_token_opens_the_lab_and_log_out_closes_it(world: World, visit: Visit) -> None:
    page = visit(world.lab, f"/models/{world.challenger}", role="", expected=(401,))
    page.get_by_role("link", name="log in", exact=True).click()
    page.get_by_label("Token").fill("sst_00000000_wrong")
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("main")).to_contain_text("the token is not known here")
    page.get_by_label("Token").fill(world.lab.tokens["ops"])
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("header")).to_contain_text("the-ops (ops)")
    assert "sst_" not in page.url
    (cookie,) = page.context.cookies()
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Lax"
    assert world.lab.tokens["ops"] not in cookie["value"]
    page.goto(f"/models/{world.challenger}")
    expect(page.get_by_role("link", name="Promote …")).to_be_visible()
    page.get_by_role("button", name="log out").click()
    expect(page.locator("header")).to_contain_text("log in")
    assert page.context.cookies() == []
    page.goto(f"/models/{world.challenger}")
    assert page.get_by_role("link", name="Promote …").count() == 0


def test_a_login_leads_on_to_the_page_that_was_asked_for(world: World, visit: Visit) -> None:
    page = visit(world.lab, "/login?next=%2Fevents%3Faction%3Dpromote", role="")
    page.get_by_label("Token").fill(world.lab.tokens["read"])
    page.get_by_role("button", name="Log in").click()
    expect(page).to_have_url(f"{world.lab.address}/events?action=promote")


@pytest.mark.parametrize(
    "address",
    [
        "//evil.example",
        "https://evil.example",
        "/\\evil.example",
        "evil",
        "",
        "javascript:alert(1)",
        "/a\nb",
        "/é",
    ],
)
def test_a_login_leads_nowhere_else(address: str) -> None:
    assert own_place(address) == "/"


def test_a_session_ends_with_its_token(own_world: Own, visit: Visit) -> None:
    world = own_world()
    page = visit(world.lab, "/", role="ops", expected=(401, 403))
    expect(page.locator("header")).to_contain_text("the-ops")
    TokenFile(world.folder / "tokens.json").revoke("the-ops")
    while "log out" in page.request.get("/").text():
        pass
    page.reload()
    expect(page.locator("header")).to_contain_text("log in")


def test_a_cookie_that_was_made_up_or_is_of_another_lab_is_a_visitors(world: World) -> None:
    for value in (
        "x",
        "gAAAAA",
        Fernet(Fernet.generate_key()).encrypt(b'{"token": "a", "csrf": "b"}').decode(),
    ):
        answer = world.lab.get("/", headers={"Cookie": f"signalserve={value}"})
        assert answer.status_code == 200
        assert "log in" in answer.text


def test_workers_share_the_key_and_nobody_else_reads_it(world: World) -> None:
    path = world.folder / "session.key"
    assert session_key(path) == session_key(path)
    assert path.stat().st_mode & 0o077 == 0
    assert [entry.name for entry in world.folder.glob(".session.key*")] == []


def test_no_secret_stands_in_a_page(world: World) -> None:
    own = {"Origin": world.lab.address}
    with httpx.Client(base_url=world.lab.address, timeout=30.0) as http:
        http.post("/login", data={"token": world.lab.tokens["admin"]}, headers=own)
        for path in world.paths().values():
            assert not re.search(r"sst_[0-9a-f]{8}_", http.get(path).text), path
