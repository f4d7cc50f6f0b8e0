"""What can go wrong with a training run.

TrainingError              the run failed; where the registry could be written, a `failed` entry keeps the text
├── LookAheadError         features read bars after their own (`training.leakage`)
├── UnrecordedError        a backtest that nobody would count, since the registry can't be written
└── TrainingRequestError   the request itself can't be run; nothing was written
    └── InSampleError      it asks for bars that the model was trained on
"""

from __future__ import annotations


class TrainingError(Exception):
    """A training run failed. `model_id` names its `failed` entry in the registry; None where there is none."""

    def __init__(self, message: str, *, model_id: str | None = None) -> None:
        super().__init__(message)
        self.model_id = model_id


class UnrecordedError(TrainingError):
    """A backtest's look at bars could not be kept in the log, so it was not shown."""


class TrainingRequestError(TrainingError):
    """The request can't be run: an unknown preset, model type or parameter. Nothing was written."""


class InSampleError(TrainingRequestError):
    """A backtest would run over bars that the model was trained on."""
