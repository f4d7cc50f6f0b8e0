"""What the serving path refuses, and the status code of every error that a handler may meet.

ServingError
├── UnknownServingKeyError     NOT_FOUND            no entry of the symbol and timeframe
├── RequestError               INVALID_ARGUMENT     the request is wrong; `field` says where
├── NothingToServeError        FAILED_PRECONDITION  no production model, or one that can't be served
├── OverloadedError            RESOURCE_EXHAUSTED   with RetryInfo
├── LateError                  DEADLINE_EXCEEDED    no work was done
├── StartingError              UNAVAILABLE          with RetryInfo; no model was loaded yet
└── DrainingError              UNAVAILABLE

The registry's and the predictors' errors have their own trees; `status_of` maps all three.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping

import grpc
import structlog
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from signalserve.predictors.errors import InputError, PredictorError
from signalserve.registry.errors import (
    CallerError,
    InvalidArgumentError,
    NotFoundError,
    RegistryBusyError,
    RegistryError,
    StaleExpectationError,
    StorageError,
)

DOMAIN = "signalserve"
# an error travels in the trailing metadata, which a client takes up to 8 KiB of: the text twice or, with a field,
# three times, and what is not the text itself in base64
_LONGEST_TEXT = 1_000
_FACTS = 2_800

_log = structlog.get_logger("server")


class ServingError(Exception):
    """Root of the tree. `reason` is for programs, the text says what to do, `metadata` holds the facts."""

    code = grpc.StatusCode.UNKNOWN
    retry_seconds: float | None = None

    def __init__(
        self, reason: str, message: str, *, field: str = "", metadata: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.field = field
        self.metadata = dict(metadata or {})


class UnknownServingKeyError(ServingError):
    """The registry has no such key."""

    code = grpc.StatusCode.NOT_FOUND


class RequestError(ServingError):
    """The request is wrong and will be wrong again."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class NothingToServeError(ServingError):
    """The request is right, but there is no model that may answer it."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class OverloadedError(ServingError):
    """More calls in flight than `server.max_in_flight`."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    retry_seconds = 0.05


class LateError(ServingError):
    """The deadline was gone before the work began."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class StartingError(ServingError):
    """The registry was not read yet, so nobody can say what it holds."""

    code = grpc.StatusCode.UNAVAILABLE
    retry_seconds = 0.25


class DrainingError(ServingError):
    """The server is about to stop."""

    code = grpc.StatusCode.UNAVAILABLE


def status_of(error: BaseException) -> status_pb2.Status:
    """The google.rpc.Status of an error: code, text, ErrorInfo, and BadRequest or RetryInfo where they apply.

    What is no refusal but a bug becomes INTERNAL with an id that stands in the log beside the traceback.
    """
    if isinstance(error, ServingError):
        return _status(error.code, str(error), error.reason, error.metadata, error.field, error.retry_seconds)
    if isinstance(error, InputError):
        metadata = {
            name: str(value)
            for name in ("row", "column")
            if (value := getattr(error, name, None)) is not None
        }
        return _status(grpc.StatusCode.INVALID_ARGUMENT, str(error), error.reason, metadata, "values")
    if isinstance(error, CallerError):
        return _status(_caller_code(error), str(error), error.reason, error.metadata)
    if isinstance(error, RegistryBusyError):
        return _status(
            grpc.StatusCode.UNAVAILABLE, str(error), error.reason, error.metadata, retry_seconds=1.0
        )
    if isinstance(error, StorageError):
        # nobody's request is wrong, and whoever looks after the registry must read what is
        _log.error("registry.storage", why=str(error))
        return _status(grpc.StatusCode.FAILED_PRECONDITION, str(error), error.reason, error.metadata)
    if isinstance(error, PredictorError):
        return _status(grpc.StatusCode.FAILED_PRECONDITION, str(error), "MODEL_NOT_SERVABLE", {})
    incident = uuid.uuid4().hex[:12]
    kind = "registry" if isinstance(error, RegistryError) else "internal"
    _log.error("server.internal_error", incident=incident, kind=kind, exc_info=error)
    return _status(
        grpc.StatusCode.INTERNAL,
        f"internal error {incident}; the server's log has the details under this id",
        "INTERNAL_ERROR",
        {"incident": incident},
    )


def code_of(status: status_pb2.Status) -> grpc.StatusCode:
    """The gRPC code of a google.rpc.Status."""
    return _CODES[status.code]


_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def _caller_code(error: CallerError) -> grpc.StatusCode:
    if isinstance(error, NotFoundError):
        return grpc.StatusCode.NOT_FOUND
    if isinstance(error, InvalidArgumentError):
        return grpc.StatusCode.INVALID_ARGUMENT
    if isinstance(error, StaleExpectationError):
        return grpc.StatusCode.ABORTED
    return grpc.StatusCode.FAILED_PRECONDITION


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
