"""From read models to HTML: one environment of templates, every value of which is escaped.

A page sends `Referrer-Policy: same-origin`: a form's POST must say where it comes from, and nothing goes elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse

from signalserve import __version__
from signalserve.lab.identity import Doorkeeper
from signalserve.lab.pages.assets import own_path, plotly_path
from signalserve.lab.pages.formats import FILTERS, measured
from signalserve.lab.pages.words import ACTIONS, TITLES, VERDICTS, tone_of, verdict_bound, word_of
from signalserve.lab.server import ServerState

NAVIGATION = (
    ("models", "/", "Models"),
    ("compare", "/compare", "Compare"),
    ("history", "/history", "History"),
    ("live", "/live", "Live"),
    ("events", "/events", "Events"),
    ("server", "/server", "Server"),
)
_HEADERS = {"Cache-Control": "private, no-cache", "Referrer-Policy": "same-origin", "Vary": "Accept, Cookie"}


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("signalserve.lab"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    environment.globals.update(
        navigation=NAVIGATION,
        version=__version__,
        own_path=own_path,
        plotly_path=plotly_path,
        tone_of=tone_of,
        word_of=word_of,
        verdict_titles=TITLES,
        verdict_words=VERDICTS,
        verdict_bound=verdict_bound,
        action_words=ACTIONS,
        query_string=query_string,
        same_page=same_page,
        measured=measured,
    )
    return environment


def rendered(
    request: Request,
    template: str,
    *,
    page: str,
    server: ServerState | None = None,
    status: int = 200,
    **values: Any,
) -> HTMLResponse:
    """A page. `page` names its place in the navigation, `server` what the head says of the gRPC server."""
    door: Doorkeeper = request.app.state.door
    user = door.seen(request)
    html = (
        _environment()
        .get_template(template)
        .render(
            request=request,
            page=page,
            server=server,
            user=user,
            may_log_in=door.knows_tokens,
            csrf=user.csrf,
            now=datetime.now(UTC),
            **values,
        )
    )
    # what a hand-edited index has that is no UTF-8 is lost, and not the page
    return HTMLResponse(html.encode("utf-8", "replace"), status, headers=_HEADERS)


def query_string(pairs: Sequence[tuple[str, object]]) -> str:
    """`?a=1&b=2` of those that have a value; empty for none."""
    given = [(name, str(value)) for name, value in pairs if value not in ("", None)]
    return f"?{urlencode(given, errors='replace')}" if given else ""


def same_page(request: Request, **changes: object) -> str:
    """The address of this page with some of its query changed; `page` goes back to 1 unless it is what changes."""
    kept = [
        (name, value)
        for name, value in request.query_params.multi_items()
        if name not in changes and name != "page"
    ]
    return request.url.path + query_string([*kept, *changes.items()])
