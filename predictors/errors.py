"""What can go wrong between a fitted model and a score.

PredictorError
├── UnsupportedModelError     the model can't give one score a row
│   └── DeclarationError      meta.json must say something of the model, or says something that is not so
├── IntegrityError            a file is missing, or is not the one that was sealed
├── GoldenMismatchError       the opened model does not give its golden scores
├── UnpickleRefusedError      the model needs model.joblib opened, and the policy says no
├── InputError                a matrix that the model can't answer; the caller's fault
└── NonFiniteScoreError       the model's own answer is no number
"""

from __future__ import annotations


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


class NonFiniteScoreError(PredictorError):
    """The model answered NaN or an infinity, which is no score; `row` (from 0) is the first such row."""

    def __init__(self, row: int, score: float) -> None:
        super().__init__(f"row {row}: the model's score is {score}, which is no finite number")
        self.row = row
        self.score = score
