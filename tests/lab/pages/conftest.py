"""A browser that finds fault by itself, and a lab with a day's work in it."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from signalserve.access.identity import Role
from signalserve.access.token_file import TokenFile
from signalserve.config.settings import Settings
from signalserve.lab.changes import Pace
from tests.lab.conftest import LabProcess, Workshop, lab_settings, with_gate
from tests.lab.pages.chromium import chromium, launch
from tests.lab.pages.snapshots import write_snapshot
from tests.registries import registry_at
from tests.server.wire.conftest import Server
from tests.small_models import register_copy
from tests.training.conftest import CONFIG

KEY = "SYNTH/15m"
# the workshop has few bars
GENTLE = {"min_bars": 100, "min_trades": 1}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, ended with each file: no event loop of another test could run beside Playwright's."""
    if chromium() is None:
        if os.environ.get("SIGNALSERVE_TEST_BROWSER") == "required":
            pytest.fail("no Chromium on this machine, and the environment asks for one")
        pytest.skip("no Chromium on this machine; on Debian: apt install chromium")
    with sync_playwright() as playwright, launch(playwright) as browser:
        yield browser


@dataclass
class Faults:
    """What a page must not do; `expected` are statuses of answers that the test asks for."""

    address: str
    expected: tuple[int, ...] = ()
    found: list[str] = field(default_factory=list)

    def watch(self, page: Page) -> None:
        page.on("pageerror", lambda error: self.found.append(f"script error: {error}"))
        page.on("console", lambda message: self._console(message.type, message.text))
        page.on("request", lambda request: self._request(request.url))

    def _console(self, kind: str, text: str) -> None:
        if kind not in ("error", "warning"):
            return
        if "Failed to load resource" in text and any(f"status of {code}" in text for code in self.expected):
            return
        self.found.append(f"console {kind}: {text}")

    def _request(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("data", "blob") and parts.netloc != urlsplit(self.address).netloc:
            self.found.append(f"a request elsewhere: {url}")


Visit = Callable[..., Page]


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    """Open a page of a lab: `visit(lab, "/events")`; every fault that it shows fails the test at its end.

    `role` is who is logged in, "" for nobody; it counts where the lab knows tokens.
    """
    watched: list[Faults] = []
    with ExitStack() as stack:

        def open_page(
            lab: LabProcess, path: str, expected: tuple[int, ...] = (), role: str = "ops", **options: Any
        ) -> Page:
            options = {"viewport": {"width": 1280, "height": 900}} | options
            context = stack.enter_context(browser.new_context(base_url=lab.address, **options))
            context.set_default_timeout(15_000)
            # a violation of the policy is a console error where the browser says nothing of it
            context.add_init_script(
                "document.addEventListener('securitypolicyviolation', (event) =>"
                " console.error('CSP: ' + event.violatedDirective + ' ' + event.blockedURI));"
            )
            if role and lab.tokens:
                form = {"token": lab.tokens[role]}
                context.request.post("/login", form=form, headers={"Origin": lab.address})
            page = context.new_page()
            faults = Faults(lab.address, expected)
            faults.watch(page)
            watched.append(faults)
            page.goto(path)
            return page

        yield open_page
    assert [fault for faults in watched for fault in faults.found] == []


def drawn(page: Page) -> Page:
    """The page, once each of its charts is drawn."""
    expect(page.locator("figure[data-chart] .plot:not([data-drawn])")).to_have_count(0)
    return page


@dataclass(frozen=True)
class World:
    """A lab, its server, and the names of what is in the registry."""

    lab: LabProcess
    server: Server
    folder: Path
    champion: str
    challenger: str

    @property
    def base(self) -> Path:
        return self.folder / "ml_models"

    def paths(self) -> dict[str, str]:
        """Every kind of page."""
        return {
            "models": "/",
            "model": f"/models/{self.challenger}",
            "model in production": f"/models/{self.champion}",
            "broken model": "/models/broken",
            "compare": f"/compare?model={self.challenger}&model={self.champion}",
            "choose to compare": "/compare",
            "history": f"/history/{KEY}",
            "choose a key": "/history",
            "live": "/live",
            "events": "/events",
            "event": "/events/1",
            "evaluation": "/events/4",
            "server": "/server",
            "promote": f"/models/{self.challenger}/promote",
            "rollback": "/rollback?symbol=SYNTH&timeframe=15m",
            "archive": f"/archive?model={self.champion}&model={self.challenger}",
        }


PAGES = (
    "models", "model", "model in production", "broken model", "compare", "choose to compare", "history",
    "choose a key", "live", "events", "event", "evaluation", "server", "promote", "rollback", "archive",
)  # fmt: skip

Open = Callable[..., World]


def server_of(settings: Settings, loop: asyncio.AbstractEventLoop) -> Server:
    """A ready gRPC server of these settings on a free port."""
    options = settings.server.model_copy(update={"port": 0, "poll_ms": 20, "drain_seconds": 3600.0})
    server = Server(settings.model_copy(update={"server": options}), loop)
    server.until(lambda status: status.ready)
    return server


def with_tokens(settings: Settings, folder: Path) -> tuple[Settings, dict[str, str]]:
    """The same settings with a token file, and a token for each role; whoever asks the server has the one of ops."""
    file, own = TokenFile(folder / "tokens.json"), folder / "own.token"
    tokens = {str(role): file.create(f"the-{role}", [role])[1] for role in Role}
    own.write_text(tokens["ops"])
    changes: dict[str, dict[str, Any]] = {
        "security": {"token_file": file.path},
        "client": {"token_file": own},
        "lab": {"session_key": folder / "session.key"},
    }
    sections = {name: getattr(settings, name).model_copy(update=values) for name, values in changes.items()}
    return settings.model_copy(update=sections), tokens


def lab_with_server(settings: Settings, server: Server, tokens: dict[str, str]) -> LabProcess:
    """The lab before a server."""
    client = settings.client.model_copy(update={"target": server.target})
    settings = settings.model_copy(update={"client": client})
    lab = LabProcess(settings, pace=Pace(poll_seconds=0.05))
    lab.tokens = tokens
    return lab


def furnish(folder: Path, templates: list[Path]) -> None:
    """What a registry gathers beside a day's work: a broken model, another key, live engines."""
    base = folder / "ml_models"
    register_copy(templates[0], base, "broken", symbol="ETH-PERP_X", timeframe="1h")
    register_copy(templates[1], base, "<img src=x onerror=alert(1)>", symbol="ETH-PERP_X", timeframe="1h")
    shutil.rmtree(base / "broken")


@pytest.fixture(scope="session")
def world(
    workshop: Workshop,
    templates: list[Path],
    loop: asyncio.AbstractEventLoop,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[World]:
    """What the tests that change nothing look at."""
    folder = tmp_path_factory.mktemp("world") / "home"
    here = workshop.copied_to(folder)
    furnish(folder, templates)
    write_snapshot(folder / "live", "SYNTH_15m", here.champion, here.challenger)
    write_snapshot(folder / "live", "OLD_15m", here.champion, here.champion, stale=True)
    settings, tokens = with_tokens(
        with_gate(lab_settings(folder, trading=CONFIG["trading"]), **GENTLE), folder
    )
    server = server_of(settings, loop)
    lab = lab_with_server(settings, server, tokens)
    yield World(lab, server, folder, here.champion, here.challenger)
    lab.close()
    server.close()


@pytest.fixture
def own_world(
    workshop: Workshop, loop: asyncio.AbstractEventLoop, tmp_path: Path
) -> Iterator[Callable[..., World]]:
    """A world for one test that changes it: `own_world(min_probability=0.99)` sets bounds of the gate."""
    with ExitStack() as stack:

        def make(**bounds: Any) -> World:
            here = workshop.copied_to(tmp_path / "home")
            settings, tokens = with_tokens(
                with_gate(lab_settings(here.folder, trading=CONFIG["trading"]), **GENTLE | bounds),
                here.folder,
            )
            server = server_of(settings, loop)
            stack.callback(server.close)
            lab = lab_with_server(settings, server, tokens)
            stack.callback(lab.close)
            return World(lab, server, here.folder, here.champion, here.challenger)

        yield make


def status_of(world: World, model_id: str) -> str:
    """What the registry's file says of a model."""
    return registry_at(world.base).entry(model_id).status
