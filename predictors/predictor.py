"""A proven model, ready to answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from signalserve.predictors.errors import BrokenScoresError, InputError, NonFiniteScoreError
from signalserve.predictors.kinds import Kind, Matrix, Output
from signalserve.predictors.schema import schema_hash

# of a number's size; float32 keeps 24 bits
_SLACK = 1e-6
_ROUNDINGS = 4 * float(np.finfo(np.float32).eps)


class Predictor:
    """`predict(matrix [n, k]) -> scores [n]`, one-threaded and safe to call from several threads.

    `digest` is the artefact's, empty for a legacy folder. `feature_min` and `feature_max` are float64 [k], or
    None where the training range is unknown; `lowest` and `highest` are the same with room for a few roundings.
    `feature_set` says which definition computed the features that the model was trained on, as `core@1`; a legacy
    folder and a manifest of format 1 don't know it, so whoever knows the metadata sets it. `file_bytes` is the size of
    the model's files, 0 where nobody looked.
    """

    file_bytes = 0

    def __init__(
        self,
        score: Callable[[Matrix], Matrix],
        feature_names: Sequence[str],
        *,
        dtype: type[np.floating[Any]],
        digest: str,
        engine: str,
        engine_reason: str,
        kind: Kind,
        accepts_nan: bool,
        feature_min: Sequence[float] | None = None,
        feature_max: Sequence[float] | None = None,
        feature_set: str = "",
    ) -> None:
        self._score = score
        self._dtype = dtype
        self._largest = float(np.finfo(dtype).max)
        self.feature_names = tuple(feature_names)
        self.schema_hash = schema_hash(self.feature_names)
        self.digest = digest
        self.engine = engine
        self.engine_reason = engine_reason
        self.kind = kind
        # float32 rounds a probability of one
        largest = float(np.finfo(np.float64).max)
        self._lowest, self._highest = (-largest, largest) if kind == "regressor" else (-_SLACK, 1.0 + _SLACK)
        self.accepts_nan = accepts_nan
        self.feature_set = feature_set
        self.feature_min = None if feature_min is None else np.asarray(feature_min, dtype=np.float64)
        self.feature_max = None if feature_max is None else np.asarray(feature_max, dtype=np.float64)
        self.lowest, self.highest = _with_room(self.feature_min, self.feature_max)

    @property
    def output(self) -> Output:
        """What the scores are: the probability of class 1, or a regressor's value."""
        return "value" if self.kind == "regressor" else "probability"

    def predict(self, matrix: Matrix) -> Matrix:
        """Score the rows; every score is a finite number, and a probability where `output` says so.

        Raises:
            InputError: no rows, another width, an infinite value, or NaN where the model takes none.
            NonFiniteScoreError: the model answered one of them with NaN, an infinity, or no probability.
            BrokenScoresError: the model gave another number of scores, or raised whatever it raised.
        """
        if matrix.ndim != 2 or matrix.shape[1] != len(self.feature_names):
            raise InputError(
                "WRONG_WIDTH", f"rows of shape {matrix.shape}, the model takes [n, {len(self.feature_names)}]"
            )
        if len(matrix) == 0:
            raise InputError("NO_ROWS", "the matrix has no row")
        # one pass over what is almost always fine: NaN and infinities fail the comparison, as does a number
        # beyond float32, which is infinite to a model that computes in it
        if not np.abs(matrix).max() <= self._largest:
            self._refuse(matrix)
        try:
            scores = self._score(np.ascontiguousarray(matrix, dtype=self._dtype))
        except KeyboardInterrupt:
            raise
        except (
            BaseException
        ) as error:  # a model's own code raises anything, SystemExit and CancelledError too
            raise BrokenScoresError("MODEL_FAILED", f"{type(error).__name__}: {error}") from error
        if scores.shape != matrix.shape[:1]:
            raise BrokenScoresError("WRONG_SCORES", f"{len(matrix)} rows, and scores of shape {scores.shape}")
        # a single score is looked at in a tenth of the time that numpy takes for it; NaN fails each comparison
        if len(scores) == 1:
            fine = self._lowest <= scores.item() <= self._highest
        else:
            fine = bool(scores.min() >= self._lowest and scores.max() <= self._highest)
        if not fine:
            row = int(np.flatnonzero(~((scores >= self._lowest) & (scores <= self._highest)))[0])
            raise NonFiniteScoreError(row, float(scores[row]))
        return scores

    def _refuse(self, matrix: Matrix) -> None:
        with np.errstate(over="ignore"):
            cast = matrix.astype(self._dtype)
        missing = np.isnan(cast)
        infinite = np.isinf(cast)
        if infinite.any():
            row, column = (int(index) for index in np.argwhere(infinite)[0])
            name = self.feature_names[column]
            limit = "" if self._dtype is np.float64 else " (or too large for float32)"
            raise InputError(
                "INFINITE_VALUE", f"row {row}, {name}: the value is infinite{limit}", row=row, column=name
            )
        if missing.any() and not self.accepts_nan:
            row, column = (int(index) for index in np.argwhere(missing)[0])
            name = self.feature_names[column]
            raise InputError(
                "NAN_VALUE",
                f"row {row}, {name}: the value is NaN, and this model takes no missing values",
                row=row,
                column=name,
            )


def _with_room(low: Matrix | None, high: Matrix | None) -> tuple[Matrix | None, Matrix | None]:
    """The training range and a few float32 roundings of it either way: the same number by another route is no news."""
    if low is None or high is None:
        return None, None
    largest = np.maximum(np.abs(low), np.abs(high))
    room = np.where(largest > 0, _ROUNDINGS * largest, _ROUNDINGS)  # always zero: no scale is known
    return low - room, high + room
