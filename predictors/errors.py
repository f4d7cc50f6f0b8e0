"""What can go wrong between a fitted model and a score.

PredictorError
├── UnsupportedModelError     the model can't give one score a row
│   └── DeclarationError      meta.json must say something of the model, or says something that is not so
├── IntegrityError            a file is missing, or is not the one that was sealed
├── GoldenMismatchError       the opened model does not give its golden scores
├── UnpickleRefusedError      the model needs model.joblib opened, and the policy says no
├── InputError                a matrix that the model can't answer; the caller's fault
└── BrokenScoresError         the model's own answer is none: another number of scores, or it raised
    └── NonFiniteScoreError   a score is no number, or no probability
"""

from __future__ import annotations

import math


class PredictorError(Exception):
    """Root of the tree."""


class UnsupportedModelError(PredictorError):
    """The model can't give one score a row: too many classes, another number of columns, no known kind."""


class DeclarationError(UnsupportedModelError):
    """The owner must declare something in meta.json (which class is class 1), or declared what is not so."""


class IntegrityError(PredictorError):
    """A file is missing, malformed, or not the one that was sealed."""


class GoldenMismatchError(PredictorError):
    """The opened model does not give the scores that were stored with it."""


class UnpickleRefusedError(PredictorError):
    """The model has no ONNX form, and `security.unpickle` forbids to open its model.joblib."""


class InputError(PredictorError):
    """A matrix that the model can't answer.

    `reason`: WRONG_WIDTH, NO_ROWS, NAN_VALUE or INFINITE_VALUE; `row` (from 0) and `column` (a feature's name)
    say where the first bad value stands.
    """

    def __init__(
        self, reason: str, message: str, *, row: int | None = None, column: str | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.row = row
        self.column = column


class BrokenScoresError(PredictorError):
    """The model's own answer is none; `reason` is MODEL_FAILED (it raised) or WRONG_SCORES (another number of them)."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class NonFiniteScoreError(BrokenScoresError):
    """The model answered NaN or an infinity, or no probability where it should; `row` (from 0) is the first such row.

    `reason` is NON_FINITE_SCORE or NO_PROBABILITY.
    """

    def __init__(self, row: int, score: float) -> None:
        finite = math.isfinite(score)
        super().__init__(
            "NO_PROBABILITY" if finite else "NON_FINITE_SCORE",
            f"row {row}: the model's score is {score}, which is no {'probability' if finite else 'finite number'}",
        )
        self.row = row
        self.score = score
