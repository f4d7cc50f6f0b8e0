"""The files that pages load: our own style and scripts, and plotly.js as its Python wheel ships it.

1. A path holds a digest of what it names, so a browser keeps the file for good and never an old one. A path with
   another digest (a page from before an update) still gets today's file, to be asked for again.
2. plotly.js is served from the wheel, compressed once a process.
"""

from __future__ import annotations

import gzip
import hashlib
from functools import cache
from importlib.metadata import version
from importlib.resources import files

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from signalserve.lab.api.problems import MissingError

router = APIRouter(include_in_schema=False)

_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_FOR_GOOD = "public, max-age=31536000, immutable"
_ASK_AGAIN = "no-cache"
_PLOTLY = "plotly.min.js"


@cache
def _own() -> dict[str, bytes]:
    folder = files("signalserve.lab") / "static"
    return {
        item.name: item.read_bytes()
        for item in folder.iterdir()
        if item.is_file() and "." + item.name.rpartition(".")[2] in _TYPES
    }


@cache
def own_digest() -> str:
    """Names the whole of our own files: scripts import each other by relative paths."""
    digest = hashlib.sha256()
    for name, content in sorted(_own().items()):
        digest.update(name.encode() + b"\0" + content + b"\0")
    return digest.hexdigest()[:12]


@cache
def _plotly() -> tuple[bytes, bytes]:
    content = (files("plotly") / "package_data" / _PLOTLY).read_bytes()
    return content, gzip.compress(content, 6, mtime=0)


def own_path(name: str) -> str:
    """Where a page finds one of our files."""
    return f"/static/{own_digest()}/{name}"


def plotly_path() -> str:
    """Where a page finds plotly.js."""
    return f"/static/plotly-{version('plotly')}.js"


@router.get("/static/{digest}/{name}")
async def own(digest: str, name: str) -> Response:
    """One of our own files."""
    content = _own().get(name)
    if content is None:
        raise MissingError("NO_SUCH_FILE", f"the lab has no file {name}")
    kept = _FOR_GOOD if digest == own_digest() else _ASK_AGAIN
    media_type = _TYPES["." + name.rpartition(".")[2]]
    return Response(content, media_type=media_type, headers={"Cache-Control": kept})


@router.get("/static/plotly-{release}.js")
async def plotly(request: Request, release: str) -> Response:
    """plotly.js."""
    content, compressed = _plotly()
    kept = _FOR_GOOD if release == version("plotly") else _ASK_AGAIN
    headers = {"Cache-Control": kept, "Vary": "Accept-Encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        return Response(compressed, media_type=_TYPES[".js"], headers=headers)
    return Response(content, media_type=_TYPES[".js"], headers=headers)
