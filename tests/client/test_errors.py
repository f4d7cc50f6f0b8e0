import copy
import pickle

import grpc
import pytest
from google.rpc import status_pb2

import signalserve.client as library
from signalserve.client.errors import SignalServeError, UnknownError, from_rpc_error, from_status

CLASSES = {
    "INVALID_ARGUMENT": library.InvalidArgument,
    "NOT_FOUND": library.NotFound,
    "ALREADY_EXISTS": library.AlreadyExists,
    "FAILED_PRECONDITION": library.FailedPrecondition,
    "ABORTED": library.Aborted,
    "OUT_OF_RANGE": library.OutOfRange,
    "UNAUTHENTICATED": library.Unauthenticated,
    "PERMISSION_DENIED": library.PermissionDenied,
    "RESOURCE_EXHAUSTED": library.ResourceExhausted,
    "DEADLINE_EXCEEDED": library.DeadlineExceeded,
    "UNAVAILABLE": library.Unavailable,
    "UNIMPLEMENTED": library.Unimplemented,
    "INTERNAL": library.InternalError,
    "DATA_LOSS": library.DataLoss,
    "UNKNOWN": library.UnknownError,
    "CANCELLED": library.Cancelled,
}


def deadline_of(code):
    """In milliseconds; a full server is asked again after 1.5 s, and the deadline lies well between two such tries."""
    return 2_500 if code == "RESOURCE_EXHAUSTED" else 5_000


def check(error, code):
    assert type(error) is CLASSES[code]
    assert error.code is grpc.StatusCode[code]
    assert error.message == f"because {code}"
    assert (error.reason, error.domain) == (f"WHY_{code}", "signalserve")
    assert error.metadata["key"] == "X/15m"
    assert str(error) == f"{code} (WHY_{code}): because {code}"
    assert error.retry_after == (1.5 if code == "RESOURCE_EXHAUSTED" else None)
    expected = (("values", "wrong width"),) if code == "INVALID_ARGUMENT" else ()
    assert error.field_violations == expected


def test_every_status_code_but_ok_has_its_own_class():
    assert set(CLASSES) == {code.name for code in grpc.StatusCode} - {"OK"}


@pytest.mark.parametrize("code", sorted(CLASSES))
def test_a_refused_call_raises_the_class_of_its_code_with_every_detail(server, code):
    with library.SignalClient(server.target) as client:
        with pytest.raises(SignalServeError) as caught:
            client.predict(code, "15m", {"a": 1.0}, request_id="mine", deadline_ms=deadline_of(code))
        check(caught.value, code)
        assert caught.value.request_id == "mine"


@pytest.mark.parametrize("code", sorted(CLASSES))
async def test_the_async_client_raises_the_same_errors(server, code):
    async with library.AsyncSignalClient(server.target) as client:
        with pytest.raises(SignalServeError) as caught:
            await client.predict(code, "15m", {"a": 1.0}, deadline_ms=deadline_of(code))
    if code == "CANCELLED":  # asyncio hands on a cancellation without its details
        assert type(caught.value) is library.Cancelled
    else:
        check(caught.value, code)
        assert caught.value.request_id == "r-7"


def test_an_error_without_details_names_the_target(server):
    with library.SignalClient(server.target) as client, pytest.raises(library.NotFound) as caught:
        client.predict("PLAIN", "15m", {"a": 1.0}, deadline_ms=5000)
    assert caught.value.message == f"no details here [{server.target}]"
    assert (caught.value.reason, caught.value.metadata, caught.value.field_violations) == ("", {}, ())


def test_an_unknown_code_and_unknown_details_are_still_an_error():
    status = status_pb2.Status(code=99, message="from the future")
    status.details.add(type_url="type.googleapis.com/nobody.knows.This", value=b"\x01")
    error = from_status(status)
    assert type(error) is UnknownError
    assert error.message == "from the future"


class Failed(grpc.RpcError):
    def __init__(self, *trailers):
        super().__init__()
        self.trailers = trailers

    def code(self):
        return grpc.StatusCode.ABORTED

    def details(self):
        return "as the proxy says"

    def trailing_metadata(self):
        return self.trailers or None


@pytest.mark.parametrize(
    "sent",
    [
        status_pb2.Status(code=5, message="as the proxy says").SerializeToString(),
        status_pb2.Status(code=10, message="as the server said").SerializeToString(),
        b"\xff",
        None,
    ],
    ids=["another code", "another text", "no status", "nothing"],
)
def test_details_that_do_not_fit_the_error_are_passed_over(sent):
    trailers = (("other", "x"), ("grpc-status-details-bin", sent)) if sent else ()
    error = from_rpc_error(Failed(*trailers), "mine", "there:1")
    assert type(error) is library.Aborted
    assert (error.message, error.request_id) == ("as the proxy says [there:1]", "mine")


@pytest.mark.parametrize("code", sorted(CLASSES))
@pytest.mark.parametrize("through", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_an_error_keeps_its_fields_when_it_is_copied_or_pickled(code, through):
    error = CLASSES[code]("text", reason="WHY", metadata={"a": "b"}, request_id="r", retry_after=2.0)
    twin = through(error)
    assert type(twin) is type(error)
    assert twin.__dict__ == error.__dict__
    assert str(twin) == str(error)


def test_errors_can_be_caught_by_their_ordinary_kinds():
    assert issubclass(library.InvalidArgument, ValueError)
    assert issubclass(library.DeadlineExceeded, TimeoutError)
    assert issubclass(library.Unavailable, ConnectionError)
