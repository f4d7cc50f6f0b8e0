"""A matrix that one message can't hold, sent as several; its answer is one all the same.

1. The parts go one after the other. The first one's answer names the model, and the rest name it back: scores of one
   answer never come from two models, whatever is promoted meanwhile. A model that can't be asked by name any more fails
   the whole.
2. A part is as large as `most_bytes` allows, the server's limit of a message; a server that takes fewer rows says how
   many, and the rest goes in parts of so many.
3. The deadline is that of the whole.
4. So is the number of a row that an error speaks of.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from ..v1.prediction_pb2 import PredictRequest, PredictResponse
from .call import Call, Kind
from .encode import Matrix, put_values
from .errors import Aborted, SignalServeError
from .values import Prediction

_ROOM = 64 * 1024
"""For what an answer holds beside a score a row."""
_SHOWN = 20


class Parts:
    """Make `call` and `take` its answer, until that gives the whole."""

    def __init__(self, head: PredictRequest, matrix: Matrix, most_bytes: int) -> None:
        self._head = head
        self._matrix = matrix
        self._size = len(matrix)
        if matrix.nbytes * 2 > most_bytes:  # else there is room for the names in any case
            room = most_bytes - head.ByteSize() - _ROOM
            self._size = min(self._size, max(1, room // max(1, matrix.itemsize * matrix.shape[1])))
        self._done = 0
        self._answers: list[Prediction] = []
        self.call = self._next()

    def take(self, answer: Prediction) -> Prediction | None:
        """Take a part's answer; gives the whole with the last one, else sets `call` on the next.

        Raises:
            Aborted: another artefact than the first part's answered under the same name.
        """
        self._done += self._size
        self._answers.append(answer)
        first = self._answers[0]
        if (answer.model_id, answer.model_digest) != (first.model_id, first.model_digest):
            raise Aborted(
                f"{first.model_id} answered the first rows, {answer.model_id}, another artefact, the next: ask anew"
            )
        if self._done >= len(self._matrix):
            return first if len(self._answers) == 1 else _joined(self._answers)
        self._head.model_id = first.model_id
        self.call = self._next()
        return None

    def smaller(self, error: SignalServeError) -> bool:
        """Whether the refused part can be sent in smaller ones; then `call` is the first of them."""
        limit = error.metadata.get("max_rows", "") if error.reason == "TOO_MANY_ROWS" else ""
        if not limit.isdecimal() or not 0 < int(limit) < self._size:
            return False
        self._size = int(limit)
        self._head.ClearField("values")  # where it was to be the only one
        self.call = self._next()
        return True

    def of_the_whole(self, error: SignalServeError) -> SignalServeError:
        """The error of the part that failed, with the row that it speaks of as the caller counts."""
        row = error.metadata.get("row", "")
        if not self._done or not row.isdecimal():
            return error
        place = str(int(row) + self._done)

        def told(text: str) -> str:
            return re.sub(rf"\brow {row}\b", f"row {place}", text)

        error.metadata["row"] = place
        error.message = told(error.message)
        error.args = (error.message,)
        error.field_violations = tuple((field, told(text)) for field, text in error.field_violations)
        return error

    def _next(self) -> Call[PredictRequest, PredictResponse, Prediction]:
        rows = self._matrix[self._done : self._done + self._size]
        request = self._head
        if len(rows) < len(self._matrix):
            request = PredictRequest()
            request.CopyFrom(self._head)
        put_values(request, rows)
        return Call(
            Kind.PREDICTION,
            lambda stubs: stubs.prediction.Predict,
            request,
            Prediction.from_proto,
            request.request_id,
        )


def _joined(answers: list[Prediction]) -> Prediction:
    scores = np.concatenate([answer.scores for answer in answers])
    scores.flags.writeable = False
    return replace(
        answers[0],
        scores=scores,
        served_time=answers[-1].served_time,
        flags=_all(answer.flags for answer in answers),
        latency_ms=sum(answer.latency_ms for answer in answers),
        out_of_range_features=_all(answer.out_of_range_features for answer in answers)[:_SHOWN],
    )


def _all(texts: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for some in texts for text in some))
