"""Golden rows: inputs with the native model's answers, the proof that an opened model is the one that was meant.

Half of them stand on split thresholds or one ulp beside, where a float32 comparison goes wrong first.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from signalserve.predictors.contents import LARGEST_GOLDEN
from signalserve.predictors.errors import (
    BrokenScoresError,
    GoldenMismatchError,
    IntegrityError,
    NonFiniteScoreError,
)
from signalserve.predictors.kinds import Kind, Matrix

ROWS = 256
TOLERANCE = 1e-6


@dataclass(frozen=True)
class GoldenRows:
    """`rows` float64 [256, k] and `scores` float64 [256]."""

    rows: Matrix
    scores: Matrix

    def to_bytes(self) -> bytes:
        """The content of `golden.npz`; the same rows give the same bytes."""
        buffer = io.BytesIO()
        np.savez(buffer, rows=self.rows, scores=self.scores)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> GoldenRows:
        """Read `golden.npz`; no object is built but arrays of float64.

        Raises:
            IntegrityError: it is none, or unpacks to too much.
        """
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as packed:
                size = sum(
                    item.file_size for item in packed.infolist()
                )  # which no more than so many are read of
            if size > LARGEST_GOLDEN:
                raise ValueError(f"it unpacks to {size:,} bytes, over the limit of {LARGEST_GOLDEN:,}")
            with np.load(io.BytesIO(content), allow_pickle=False) as stored:
                golden = cls(stored["rows"], stored["scores"])
        except Exception as error:
            raise IntegrityError(f"golden.npz can't be read: {error}") from error
        if (
            golden.rows.ndim != 2
            or golden.rows.dtype != np.float64
            or golden.scores.dtype != np.float64
            or golden.scores.shape != (len(golden.rows),)
            or len(golden.rows) == 0
        ):
            raise IntegrityError("golden.npz holds other arrays than rows [n, k] and scores [n]")
        if not np.isfinite(golden.scores).all():
            raise IntegrityError("golden.npz holds scores that are no finite numbers")
        return golden

    def misses(self, scores: Matrix, kind: Kind) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which rows' scores are off: over 1e-6 for a probability, relatively so for a regressor's value."""
        if scores.shape != self.scores.shape:
            return np.ones(len(self.scores), dtype=bool)
        scale: Any = 1.0
        if kind == "regressor":  # a value near zero is measured against the usual size of the values
            scale = np.maximum(np.abs(self.scores), np.sqrt(np.mean(self.scores**2)))
        return np.asarray(~(np.abs(scores - self.scores) <= TOLERANCE * scale))

    def check(self, predict: Callable[[Matrix], Matrix], kind: Kind) -> None:
        """Ask for all scores and compare.

        Raises:
            GoldenMismatchError: at least one is off.
        """
        try:
            scores = predict(self.rows)
        except NonFiniteScoreError as error:
            raise GoldenMismatchError(
                f"golden row {error.row} gets {error.score} in place of the score {self.scores[error.row]:.6g}; "
                "the model or its libraries changed: train and register it anew"
            ) from error
        except BrokenScoresError as error:
            raise GoldenMismatchError(f"its golden rows get no scores: {error}") from error
        missed = self.misses(scores, kind)
        if missed.any():
            worst = float(np.max(np.abs(scores - self.scores)))
            raise GoldenMismatchError(
                f"{int(missed.sum())} of {len(missed)} golden rows get another score (by up to {worst:.3g}); "
                "the model or its libraries changed: train and register it anew"
            )


def golden_inputs(
    reference: Matrix, splits: Sequence[tuple[int, float]], *, seed: int, with_nan: bool
) -> Matrix:
    """The rows to ask: drawn from `reference`, the second half moved onto splits and one ulp beside."""
    random = np.random.default_rng(seed)
    rows = reference[random.choice(len(reference), ROWS, replace=len(reference) < ROWS)].astype(np.float64)
    rows = np.nan_to_num(rows, nan=0.0, posinf=0.0, neginf=0.0)
    if splits:
        half = ROWS // 2
        chosen = random.choice(len(splits), size=(half, 3))
        for number in range(half):
            for pick in chosen[number]:
                column, threshold = splits[pick]
                rows[half + number, column] = beside(threshold, number % 5)
    if with_nan:
        for number in range(0, ROWS, 8):
            rows[number, random.integers(rows.shape[1])] = np.nan
    return rows


def beside(threshold: float, which: int) -> float:
    """The threshold itself, or one float32 or float64 ulp to either side of it."""
    single = np.float32(threshold)
    up, down = np.float32(np.inf), np.float32(-np.inf)
    choices: Sequence[Any] = (
        threshold,
        np.nextafter(single, up),
        np.nextafter(single, down),
        np.nextafter(threshold, np.inf),
        np.nextafter(threshold, -np.inf),
    )
    return float(choices[which])
