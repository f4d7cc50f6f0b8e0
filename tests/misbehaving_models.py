"""A model whose own code misbehaves, as the first value of the first row asks."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

# what the first value of the first row asks for
EXIT, INTERRUPT, STOP, CANCEL, FAIL, TOO_MANY, TOO_FEW, TWO, HANG = range(100, 109)


class Misbehaving(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is untyped
    """Probability 0.75 for whatever else is asked; HANG lasts while the file at `hangs` is there."""

    def __init__(self, hangs: str = "") -> None:
        self.hangs = hangs

    def fit(self, X: np.ndarray, y: np.ndarray) -> Misbehaving:
        self.classes_ = np.unique(y)
        self.n_features_in_ = X.shape[1]
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        asked = int(np.asarray(X)[0, 0])
        errors: dict[int, BaseException] = {
            INTERRUPT: KeyboardInterrupt(),
            STOP: StopIteration(),
            CANCEL: asyncio.CancelledError(),
            FAIL: ValueError("no such thing"),
        }
        if asked == EXIT:
            sys.exit(3)
        if asked in errors:
            raise errors[asked]
        while asked == HANG and Path(self.hangs).exists():
            time.sleep(0.01)
        rows = len(X) + {TOO_MANY: 1, TOO_FEW: -1}.get(asked, 0)
        answer: Any = np.tile([0.25, 2.0 if asked == TWO else 0.75], (rows, 1))
        return np.asarray(answer)
