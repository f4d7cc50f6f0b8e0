"""Answers that a client may keep: JSON with an ETag, and 304 where it has them already.

The ETag is the registry's revision and the sha256 of the answer's own bytes. So it changes with anything that the
answer reads (the log, a run directory, a snapshot, what the server serves) and with nothing else, in every worker.
"""

from __future__ import annotations

import re
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from signalserve.common.files import sha256_hex
from signalserve.lab.api.problems import MEDIA_TYPE, Problem
from signalserve.lab.parts import Lab
from signalserve.lab.plain import json_bytes

_CACHE = "private, no-cache"
_TAG = re.compile(r'(?:W/)?("[^"]*")')


def answer(request: Request, value: Any, revision: int | None = None) -> Response:
    """A value as JSON, or 304 where the request names its ETag."""
    body = json_bytes(value)
    before = "" if revision is None else f"r{revision}-"
    tag = f'"{before}{sha256_hex(body)[:20]}"'
    headers = {"ETag": tag, "Cache-Control": _CACHE}
    if _has(request.headers.get("if-none-match", ""), tag):
        return Response(status_code=304, headers=headers)
    return Response(body, media_type="application/json", headers=headers)


def _has(if_none_match: str, tag: str) -> bool:
    return if_none_match.strip() == "*" or tag in _TAG.findall(if_none_match)


def revision_of(lab: Lab) -> int:
    """The revision of the registry now.

    Raises:
        StorageError: it can't be read.
    """
    return lab.registry.state.revision


def documented(model: Any, example: Any, what: str, *errors: int) -> dict[int | str, dict[str, Any]]:
    """What OpenAPI says of a GET: the answer with an example, 304, and the errors."""
    content = {"application/json": {"example": example}}
    return {
        200: {"model": model, "description": what, "content": content, "headers": _TAGGED},
        304: {"description": "As `If-None-Match` says, the client has it already.", "headers": _TAGGED},
        **errors_of(*errors),
    }


def errors_of(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What OpenAPI says of errors; those that every route may give are among them."""
    return {status: _problem(_ERRORS[status]) for status in sorted({*statuses, 401, 422, 500, 503})}


def _problem(what: str) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{Problem.__name__}"}
    return {"description": what, "content": {MEDIA_TYPE: {"schema": schema}}}


_TAGGED = {"ETag": {"description": "Names these very bytes.", "schema": {"type": "string"}}}
_ERRORS = {
    400: "The request makes no sense; `reason` says why.",
    401: "Who asks must log in first, or with another token.",
    403: "Who asks may not do this.",
    404: "There is no such thing.",
    409: "The registry refuses; `reason` and `metadata` say why, with the numbers.",
    411: "The request does not say how long it is.",
    413: "The request is too long.",
    422: "The request can't be read; `violations` says where.",
    429: "Too much is asked for at once; `Retry-After` says when to come again.",
    500: "A fault of ours; `metadata.incident` finds it in the log.",
    501: "The server is older than the lab.",
    502: "The gRPC server failed through a fault of its own.",
    503: "The registry can't be read, or the gRPC server is away.",
    504: "The gRPC server did not answer in time; the change may have been made, so look before repeating it.",
}
