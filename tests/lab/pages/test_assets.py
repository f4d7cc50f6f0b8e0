"""The files that pages load."""

from __future__ import annotations

from importlib.resources import files

from signalserve.lab.pages.assets import own_path, plotly_path
from tests.lab.pages.conftest import World


def test_plotly_is_the_wheels_own_and_is_kept_for_good(world: World) -> None:
    answer = world.lab.get(plotly_path())
    assert answer.headers["content-encoding"] == "gzip"
    assert "immutable" in answer.headers["cache-control"]
    assert answer.content == (files("plotly") / "package_data" / "plotly.min.js").read_bytes()
    plain = world.lab.get(plotly_path(), headers={"Accept-Encoding": "identity"})
    assert plain.content == answer.content


def test_our_own_files_are_kept_by_their_digest_alone(world: World) -> None:
    assert "immutable" in world.lab.get(own_path("lab.css")).headers["cache-control"]
    old = world.lab.get("/static/0123456789ab/lab.css")
    assert (old.status_code, old.headers["cache-control"]) == (200, "no-cache")
    assert world.lab.get(own_path("nothing.js")).status_code == 404
    assert world.lab.get("/static/x/..%2Fpages%2Fmodels.py").status_code == 404


def test_a_page_says_what_it_may_load(world: World) -> None:
    headers = world.lab.get("/").headers
    assert "script-src 'self';" in headers["content-security-policy"]
    assert headers["referrer-policy"] == "same-origin"
