"""Photograph every page of a running lab: `python -m tests.lab.pages.screenshots http://127.0.0.1:8080 [FOLDER]`.

Light and dark at 1280 pixels, and 390 pixels as a phone has; all of each page's length. As whoever has the token in the
file LAB_TOKEN_FILE, else as a visitor.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from urllib.parse import quote

import httpx
from playwright.sync_api import Page, expect, sync_playwright

from tests.lab.pages.chromium import launch

VIEWS = {
    "light": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "light", "device_scale_factor": 2},
}


def pages_of(address: str) -> dict[str, str]:
    """Name and path of what there is to see, by what the lab says that it has."""
    with httpx.Client(base_url=address, timeout=30.0) as http:
        found = http.get("/api/ml/models", params={"sort": "status"}).raise_for_status().json()["rows"]
        pages = {"models": "/", "compare-choose": "/compare", "history-choose": "/history", "live": "/live",
                 "events": "/events", "server": "/server", "not-found": "/nowhere"}  # fmt: skip
        if not found:
            return pages
        serving = next((row for row in found if row["in_production"]), found[0])
        others = [row for row in found if not row["in_production"] and row["status"] != "failed"]
        key = f"{quote(serving['symbol'], safe='')}/{quote(serving['timeframe'], safe='')}"
        revision = http.get("/api/ml/events").json()["rows"][0]["revision"]
        pages |= {
            "model-production": f"/models/{quote(serving['model_id'], safe='')}",
            "history": f"/history/{key}",
            "event": f"/events/{revision}",
            "rollback": f"/rollback?symbol={quote(serving['symbol'])}&timeframe={quote(serving['timeframe'])}",
        }
        mine = [row for row in others if row["symbol"] == serving["symbol"]]
        if mine:
            challenger = quote(mine[0]["model_id"], safe="")
            pages["model"] = f"/models/{challenger}"
            pages["compare"] = f"/compare?model={challenger}&model={quote(serving['model_id'])}"
            pages["promote"] = f"/models/{challenger}/promote"
        return pages


def photograph(page: Page, address: str, path: str, file: Path) -> None:
    """One page, once every chart of it is drawn."""
    page.goto(address + path)
    expect(page.locator("figure[data-chart] .plot:not([data-drawn])")).to_have_count(0)
    page.evaluate("document.fonts.ready")
    page.screenshot(path=file, full_page=True)


def main(address: str, folder: Path, only: tuple[str, ...] = ()) -> None:
    """Write every picture."""
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright, launch(playwright) as browser:
        for view, options in VIEWS.items():
            with browser.new_context(**options) as context:
                if token := os.environ.get("LAB_TOKEN_FILE"):
                    form = {"token": Path(token).read_text().strip()}
                    context.request.post(f"{address}/login", form=form, headers={"Origin": address})
                page = context.new_page()
                for name, path in pages_of(address).items():
                    if not only or name in only:
                        photograph(page, address, path, folder / f"{name}-{view}.png")


if __name__ == "__main__":
    main(
        sys.argv[1].rstrip("/"),
        Path(sys.argv[2] if len(sys.argv) > 2 else "outputs/screenshots"),
        tuple(sys.argv[3:]),
    )
