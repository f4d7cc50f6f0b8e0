# ruff: noqa: N818  the classes are named after the status codes that they stand for
"""The errors that a call to the server can raise, one class a gRPC status code.

::

    SignalServeError
    ├── InvalidArgument      the request is wrong; also a ValueError
    ├── NotFound             no such key or model_id
    ├── AlreadyExists
    ├── FailedPrecondition   nothing in production, gate refused, wrong status, ...
    ├── Aborted              stale compare-and-set: read the present state, decide anew
    ├── OutOfRange
    ├── Unauthenticated      no token, or a wrong one
    ├── PermissionDenied     a good token with the wrong role
    ├── ResourceExhausted    too much in flight, message too large; `retry_after` says when to come again
    ├── DeadlineExceeded     no answer in time; also a TimeoutError
    ├── Unavailable          no server reachable, or it is draining; also a ConnectionError
    ├── Cancelled            the call was cancelled here, e.g. by close()
    ├── Unimplemented        the server is older than this client
    ├── InternalError        a bug of the server's; `request_id` and `metadata` find it in its log
    ├── DataLoss
    └── UnknownError         any other code

What is wrong with the arguments already on this side (a text among the features, rows of different
widths) is a plain ValueError or TypeError, raised before anything is sent.
"""

import re
from collections.abc import Mapping
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from ..v1.rpc_status import Status
from .details import BadRequest, ErrorInfo, RequestInfo, RetryInfo

_OVER_LIMIT = re.compile(r"SERVER: Received message larger than max \((\d+) vs\. (\d+)\)")
_DETAILS = "grpc-status-details-bin"
"""The trailer in which a server sends the whole google.rpc.Status of an error."""


class SignalServeError(Exception):
    """A call that the server, or the way to it, answered with an error.

    `message`: what went wrong and what to do. `reason`: the UPPER_SNAKE reason of the ErrorInfo, `domain`
    and `metadata` likewise ("" and {} where the error came from the transport). `field_violations`: pairs of
    field and description. `request_id`: the id of the request in the server's log, where known.
    """

    code: grpc.StatusCode = grpc.StatusCode.UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode | None = None,
        reason: str = "",
        domain: str = "",
        metadata: Mapping[str, str] | None = None,
        field_violations: tuple[tuple[str, str], ...] = (),
        request_id: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code
        self.reason = reason
        self.domain = domain
        self.metadata = dict(metadata or {})
        self.field_violations = field_violations
        self.request_id = request_id
        self.retry_after = retry_after
        """Seconds after which the server asks to come again; None where it did not say."""

    def __str__(self) -> str:
        head = f"{self.code.name} ({self.reason})" if self.reason else self.code.name
        return f"{head}: {self.message}"

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep every field across a process boundary."""
        return _restore, (type(self), self.message, dict(self.__dict__))


class InvalidArgument(SignalServeError, ValueError):
    """The request is wrong and will stay wrong when repeated."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class NotFound(SignalServeError):
    """The server knows no such key or model."""

    code = grpc.StatusCode.NOT_FOUND


class AlreadyExists(SignalServeError):
    """The thing to make is there already."""

    code = grpc.StatusCode.ALREADY_EXISTS


class FailedPrecondition(SignalServeError):
    """The registry is in no state for the call; the message says what has to come first."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class Aborted(SignalServeError):
    """A compare-and-set came too late: another model is in production than the caller expected."""

    code = grpc.StatusCode.ABORTED


class OutOfRange(SignalServeError):
    """A value lies outside its range."""

    code = grpc.StatusCode.OUT_OF_RANGE


class Unauthenticated(SignalServeError):
    """The call carried no token, or a wrong one."""

    code = grpc.StatusCode.UNAUTHENTICATED


class PermissionDenied(SignalServeError):
    """The token is good, but its role may not make this call."""

    code = grpc.StatusCode.PERMISSION_DENIED


class ResourceExhausted(SignalServeError):
    """Too many requests in flight, or a message over the limit; `retry_after` in seconds where given."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class DeadlineExceeded(SignalServeError, TimeoutError):
    """No answer within the deadline."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class Unavailable(SignalServeError, ConnectionError):
    """No server could be reached, the connection broke, or the server is draining."""

    code = grpc.StatusCode.UNAVAILABLE


class Cancelled(SignalServeError):
    """The call was cancelled on this side."""

    code = grpc.StatusCode.CANCELLED


class Unimplemented(SignalServeError):
    """The server does not have this call."""

    code = grpc.StatusCode.UNIMPLEMENTED


class InternalError(SignalServeError):
    """The server failed through a fault of its own."""

    code = grpc.StatusCode.INTERNAL


class DataLoss(SignalServeError):
    """Data were lost or corrupted."""

    code = grpc.StatusCode.DATA_LOSS


class UnknownError(SignalServeError):
    """An error with a code that no other class stands for."""

    code = grpc.StatusCode.UNKNOWN


_BY_CODE: dict[grpc.StatusCode, type[SignalServeError]] = {
    cls.code: cls for cls in SignalServeError.__subclasses__()
}
_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def from_status(status: Status, request_id: str = "") -> SignalServeError:
    """Return the error that a `google.rpc.Status` stands for; details it does not know are passed over."""
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    fields: dict[str, Any] = {"request_id": request_id}
    for detail in status.details:
        info = ErrorInfo()
        if detail.Unpack(info):
            fields |= {"reason": info.reason, "domain": info.domain, "metadata": dict(info.metadata)}
            fields["request_id"] = fields["request_id"] or info.metadata.get("request_id", "")
            continue
        bad_request = BadRequest()
        if detail.Unpack(bad_request):
            fields["field_violations"] = tuple((v.field, v.description) for v in bad_request.field_violations)
            continue
        retry = RetryInfo()
        if detail.Unpack(retry):
            fields["retry_after"] = retry.retry_delay.ToTimedelta().total_seconds()
            continue
        request = RequestInfo()
        if detail.Unpack(request):
            fields["request_id"] = fields["request_id"] or request.request_id
    return _of_code(code, status.message, fields)


def from_rpc_error(error: grpc.RpcError, request_id: str = "", where: str = "") -> SignalServeError:
    """Return the typed error of a failed call, with its details where the server sent them.

    An error without details comes from the way to the server; then `where` (the target) is added to the text.
    """
    status = _sent_status(error)
    if status is not None:
        return from_status(status, request_id)
    text = error.details() or "no further details"
    fields: dict[str, Any] = {"request_id": request_id}
    # gRPC's own refusal, before the server's code sees the message
    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and (found := _OVER_LIMIT.search(text)):
        size, limit = (int(number) / 1024**2 for number in found.groups())
        text = (
            f"the message is {size:.4g} MB, and the server takes {limit:.4g} MB (its server.max_message_mb): give the"
            " client max_message_mb of so many, and send less at once"
        )
        fields["reason"] = "MESSAGE_TOO_LARGE"
    return _of_code(error.code(), f"{text} [{where}]" if where else text, fields)


def _sent_status(error: grpc.RpcError) -> Status | None:
    """Return the status that the server sent with an error; None where there is none to believe."""
    trailers: Any = error.trailing_metadata()  # the stubs have it as one pair
    for name, value in trailers or ():
        if name == _DETAILS:
            try:
                status = Status.FromString(value)
            except DecodeError:
                return None
            # a proxy may change the code or the text and leave the details: believe the code
            agrees = (status.code, status.message) == (error.code().value[0], error.details())
            return status if agrees else None
    return None


def _of_code(code: grpc.StatusCode, message: str, fields: dict[str, Any]) -> SignalServeError:
    return _BY_CODE.get(code, UnknownError)(message, code=code, **fields)


def _restore(cls: type[SignalServeError], message: str, state: dict[str, Any]) -> SignalServeError:
    error = cls(message)
    error.__dict__.update(state)
    return error
