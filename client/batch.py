"""A batch, and those of its items that a full server asked to send again.

An item that was refused as RESOURCE_EXHAUSTED with a RetryInfo did nothing: it goes again, with the others like it in
one batch, after the pause that the server names. What was answered stays answered, whatever becomes of the rest.
"""

from __future__ import annotations

from ..v1.prediction_pb2 import PredictBatchRequest, PredictBatchResponse
from .call import Call, Kind
from .errors import ResourceExhausted
from .values import BatchItem


class Batch:
    """Make `call` and `take` its answer; again, as long as that gives an error to wait for."""

    def __init__(self, request: PredictBatchRequest) -> None:
        self.items: list[BatchItem] = []
        """The answers so far, in the order of the requests; empty before the first."""
        self._request = request
        self._places: list[int] = []
        self.call = _call(request)

    def take(self, answers: list[BatchItem]) -> ResourceExhausted | None:
        """Take the answers; gives the refusal with the longest pause where items may be asked for again by `call`."""
        if self.items:
            for place, item in zip(self._places, answers, strict=True):
                self.items[place] = item
        else:
            self.items = answers
        refusals = {place: item.error for place, item in enumerate(self.items) if _passing(item)}
        if not refusals:
            return None
        self._places = list(refusals)
        self.call = _call(
            PredictBatchRequest(requests=[self._request.requests[place] for place in self._places])
        )
        errors = [error for error in refusals.values() if isinstance(error, ResourceExhausted)]
        return max(errors, key=lambda error: error.retry_after or 0.0)


def _passing(item: BatchItem) -> bool:
    return isinstance(item.error, ResourceExhausted) and item.error.retry_after is not None


def _call(
    request: PredictBatchRequest,
) -> Call[PredictBatchRequest, PredictBatchResponse, list[BatchItem]]:
    return Call(
        Kind.PREDICTION,
        lambda stubs: stubs.prediction.PredictBatch,
        request,
        lambda answer, latency_ms: [BatchItem.from_proto(result, latency_ms) for result in answer.results],
    )
