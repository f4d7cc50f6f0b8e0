"""Errors as `application/problem+json` (RFC 9457): what, why, what to do, and the reason for programs.

1. A refusal of the gRPC server keeps its reason and its facts; its code becomes an HTTP status in one table.
2. What nobody expected is a 500 with an incident id that stands in the log beside the traceback; its text stays here.
3. `type` is `urn:signalserve:` and the reason, so that two refusals of one status can be told apart.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from signalserve.access.errors import AccessError, UnauthenticatedError
from signalserve.client import SignalServeError
from signalserve.lab.plain import json_bytes, text_of
from signalserve.registry.errors import NotFoundError, RegistryError

MEDIA_TYPE = "application/problem+json"

STATUSES: Mapping[str, int] = {
    "INVALID_ARGUMENT": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "FAILED_PRECONDITION": 409,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "UNIMPLEMENTED": 501,
    "INTERNAL": 502,
    "DATA_LOSS": 502,
    "UNKNOWN": 502,
    "CANCELLED": 503,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
"""gRPC code -> HTTP status. An INTERNAL is the server's fault behind us, so 502."""

_log = structlog.get_logger("lab")


@dataclass(frozen=True)
class Violation:
    """One part of a request that is wrong: where, and why."""

    field: str
    description: str


@dataclass(frozen=True)
class Problem:
    """An error. `reason` is for programs, `metadata` has the facts of the text, `instance` is the path."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    reason: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    violations: tuple[Violation, ...] = ()


def problem(
    request: Request,
    status: int,
    reason: str,
    detail: str,
    *,
    metadata: Mapping[str, str] | None = None,
    violations: tuple[Violation, ...] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The answer that says what is wrong."""
    value = Problem(
        type=f"urn:signalserve:{reason.lower().replace('_', '-')}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        instance=request.url.path,
        reason=reason,
        metadata=metadata or {},
        violations=violations,
    )
    return Response(
        json_bytes(value),
        status,
        media_type=MEDIA_TYPE,
        headers={"Cache-Control": "no-store", **(headers or {})},
    )


def incident(request: Request, error: Exception) -> Response:
    """The answer to what nobody expected."""
    number = uuid.uuid4().hex[:12]
    _log.error("lab.internal_error", incident=number, path=request.url.path, exc_info=error)
    detail = f"internal error {number}; the lab's log has the details under this id"
    return problem(request, 500, "INTERNAL_ERROR", detail, metadata={"incident": number})


def add_handlers(app: FastAPI) -> None:
    """Make every error of the application a problem."""
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(SignalServeError, _server)
    app.add_exception_handler(RegistryError, _registry)
    app.add_exception_handler(AccessError, _access)
    app.add_exception_handler(BadQueryError, _query)


class BadQueryError(Exception):
    """The request can be read and makes no sense; the text says why."""


class MissingError(HTTPException):
    """What was asked for is not there."""

    def __init__(self, reason: str, detail: str, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(404, detail)
        self.reason = reason
        self.metadata = dict(metadata or {})


async def _http(request: Request, error: Exception) -> Response:
    if isinstance(error, MissingError):
        return problem(request, 404, error.reason, error.detail, metadata=error.metadata)
    if not isinstance(error, HTTPException):
        raise error
    phrase = HTTPStatus(error.status_code).phrase
    detail = error.detail if error.detail != phrase else f"{phrase}: {request.method} {request.url.path}"
    reason = phrase.upper().replace(" ", "_").replace("-", "_")
    return problem(request, error.status_code, reason, detail, headers=error.headers)


async def _validation(request: Request, error: Exception) -> Response:
    found: list[Any] = list(error.errors()) if isinstance(error, RequestValidationError) else []
    violations = tuple(
        Violation(".".join(map(str, item["loc"])), text_of(item["msg"])) for item in found[:50]
    )
    detail = "; ".join(f"{item.field}: {item.description}" for item in violations)
    return problem(
        request, 422, "INVALID_REQUEST", detail or "the request can't be read", violations=violations
    )


async def _server(request: Request, error: Exception) -> Response:
    if not isinstance(error, SignalServeError):
        raise error
    code = error.code.name
    headers = {} if error.retry_after is None else {"Retry-After": str(max(1, round(error.retry_after)))}
    if code == "UNAUTHENTICATED":
        headers["WWW-Authenticate"] = "Bearer"
    return problem(
        request,
        STATUSES.get(code, 502),
        error.reason or code,
        text_of(error.message),
        metadata={text_of(name): text_of(value) for name, value in error.metadata.items()},
        violations=tuple(Violation(name, text_of(why)) for name, why in error.field_violations),
        headers=headers,
    )


async def _registry(request: Request, error: Exception) -> Response:
    """The lab only reads, so what the registry refuses is either not there, or can't be read."""
    if not isinstance(error, RegistryError):
        raise error
    status = 404 if isinstance(error, NotFoundError) else 503
    if status == 503:
        _log.error("lab.registry", why=str(error), path=request.url.path)
    metadata = {text_of(name): text_of(value) for name, value in error.metadata.items()}
    return problem(request, status, error.reason, text_of(error), metadata=metadata)


async def _access(request: Request, error: Exception) -> Response:
    if not isinstance(error, AccessError):
        raise error
    unknown = isinstance(error, UnauthenticatedError)
    headers = {"WWW-Authenticate": "Bearer"} if unknown else {}
    metadata = {text_of(name): text_of(value) for name, value in error.metadata.items()}
    return problem(
        request, 401 if unknown else 403, error.reason, text_of(error), metadata=metadata, headers=headers
    )


async def _query(request: Request, error: Exception) -> Response:
    return problem(request, 400, "INVALID_ARGUMENT", text_of(error))
