"""The one place where an error becomes a google.rpc.Status: the code of `_CODES`, the text, the reason, the facts."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

import grpc
import structlog
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from signalserve.access.errors import AccessError, PermissionDeniedError, UnauthenticatedError
from signalserve.predictors.errors import InputError, PredictorError
from signalserve.registry.errors import (
    CallerError,
    InvalidArgumentError,
    NotFoundError,
    RegistryBusyError,
    RegistryError,
    RegistryGoneError,
    RegistryMissingError,
    StaleExpectationError,
    StorageError,
)
from signalserve.server.errors import (
    BehindError,
    BrokenAnswerError,
    DrainingError,
    LateError,
    NothingToServeError,
    OverloadedError,
    RequestError,
    ServingError,
    StartingError,
    UnknownServingKeyError,
)

Code = grpc.StatusCode

# the first that an error is an instance of; whatever is none of them is a bug of ours, and INTERNAL
_CODES: tuple[tuple[type[Exception], grpc.StatusCode], ...] = (
    (UnauthenticatedError, Code.UNAUTHENTICATED),
    (PermissionDeniedError, Code.PERMISSION_DENIED),
    (UnknownServingKeyError, Code.NOT_FOUND),
    (RequestError, Code.INVALID_ARGUMENT),
    (BrokenAnswerError, Code.INTERNAL),
    (NothingToServeError, Code.FAILED_PRECONDITION),
    (OverloadedError, Code.RESOURCE_EXHAUSTED),
    (LateError, Code.DEADLINE_EXCEEDED),
    (BehindError, Code.UNAVAILABLE),
    (StartingError, Code.UNAVAILABLE),
    (DrainingError, Code.UNAVAILABLE),
    (InputError, Code.INVALID_ARGUMENT),
    (PredictorError, Code.FAILED_PRECONDITION),
    (NotFoundError, Code.NOT_FOUND),
    (InvalidArgumentError, Code.INVALID_ARGUMENT),
    (StaleExpectationError, Code.ABORTED),
    (CallerError, Code.FAILED_PRECONDITION),
    (RegistryBusyError, Code.UNAVAILABLE),
    (RegistryGoneError, Code.UNAVAILABLE),
    (StorageError, Code.FAILED_PRECONDITION),
)
_BY_NUMBER: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
_BUSY_SECONDS = 1.0

DOMAIN = "signalserve"
# an error travels in the trailing metadata, which a client takes up to 8 KiB of: the text twice or, with a field,
# three times, and what is not the text itself in base64
_LONGEST_TEXT = 1_000
_FACTS = 2_800

_log = structlog.get_logger("server")


def status_of(error: BaseException) -> status_pb2.Status:
    """The google.rpc.Status of an error: code, text, ErrorInfo, and BadRequest or RetryInfo where they apply.

    What is no refusal but a bug, or a broken model, becomes INTERNAL with an id that stands in the log beside the
    details.
    """
    code = next((code for kind, code in _CODES if isinstance(error, kind)), Code.INTERNAL)
    if code is Code.INTERNAL:
        return _incident(error)
    text = str(error)
    if isinstance(error, ServingError):
        return _status(code, text, error.reason, error.metadata, error.field, error.retry_seconds)
    if isinstance(error, AccessError):
        return _status(code, text, error.reason, error.metadata)
    if isinstance(error, InputError):
        where = {"row": error.row, "column": error.column}
        metadata = {name: str(value) for name, value in where.items() if value is not None}
        return _status(code, text, error.reason, metadata, "values")
    if isinstance(error, RegistryError):
        busy = isinstance(error, RegistryBusyError)
        if isinstance(error, StorageError) and not isinstance(
            error, RegistryBusyError | RegistryMissingError
        ):
            # nobody's request is wrong, and whoever looks after the registry must read what is; that it has gone the
            # watcher says, once and not with every call
            _log.error("registry.storage", why=text)
        return _status(
            code, text, error.reason, error.metadata, retry_seconds=_BUSY_SECONDS if busy else None
        )
    return _status(code, text, "MODEL_NOT_SERVABLE", {})


def code_of(status: status_pb2.Status) -> grpc.StatusCode:
    """The gRPC code of a google.rpc.Status."""
    return _BY_NUMBER[status.code]


_BROKEN = {
    "NON_FINITE_SCORE": "the model's score is not finite",
    "NO_PROBABILITY": "the model's score is no probability",
    "WRONG_SCORES": "the model gave another number of scores than it got rows",
    "MODEL_FAILED": "the model failed",
}


def _incident(error: BaseException) -> status_pb2.Status:
    incident = uuid.uuid4().hex[:12]
    if isinstance(error, BrokenAnswerError):
        _log.error("model.broken_answer", incident=incident, why=str(error), **error.metadata)
        return _status(
            Code.INTERNAL,
            f"{_BROKEN[error.reason]} ({incident}; the server's log has the details under this id)",
            error.reason,
            {**error.metadata, "incident": incident},
        )
    kind = "registry" if isinstance(error, RegistryError) else "internal"
    _log.error("server.internal_error", incident=incident, kind=kind, exc_info=error)
    return _status(
        Code.INTERNAL,
        f"internal error {incident}; the server's log has the details under this id",
        "INTERNAL_ERROR",
        {"incident": incident},
    )


def _status(
    code: grpc.StatusCode,
    message: str,
    reason: str,
    metadata: Mapping[str, str],
    field: str = "",
    retry_seconds: float | None = None,
) -> status_pb2.Status:
    # percent-encoding makes three bytes of one that is not ASCII
    message = _clip(message, _LONGEST_TEXT if message.isascii() else _LONGEST_TEXT // 3)
    facts = _clipped(metadata)
    status = status_pb2.Status(code=code.value[0], message=message)
    _pack(status, error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=facts))
    if field:
        violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=message)
        _pack(status, error_details_pb2.BadRequest(field_violations=[violation]))
    if retry_seconds is not None:
        delay = duration_pb2.Duration(nanos=int(retry_seconds * 1e9) % 10**9, seconds=int(retry_seconds))
        _pack(status, error_details_pb2.RetryInfo(retry_delay=delay))
    return status


def _clipped(metadata: Mapping[str, str]) -> dict[str, str]:
    """Facts that fit together: the short ones whole, what is left shared among the long ones."""
    facts: dict[str, str] = {}
    left = _FACTS
    for count, name in enumerate(sorted(metadata, key=lambda name: len(metadata[name]))):
        facts[name] = _clip(metadata[name], left // (len(metadata) - count) - len(name))
        left -= len(name) + len(facts[name].encode())
    return facts


def _clip(text: str, longest: int) -> str:
    """A text of at most so many bytes; one that was cut ends with three dots."""
    content = text.encode("utf-8", "replace")
    if len(content) <= longest:
        return content.decode()
    return content[: max(0, longest - 3)].decode("utf-8", "ignore") + "..."


def _pack(status: status_pb2.Status, detail: object) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)  # type: ignore[arg-type]  # the generated classes of google.rpc are untyped
    status.details.append(packed)
