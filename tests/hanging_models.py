"""A model that hangs while it is opened, for as long as a test wants."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin


class Hanging(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is untyped
    """Probability 0.75; opening it reads the FIFO at `fifo`, where there is one."""

    def __init__(self, fifo: str = "") -> None:
        self.fifo = fifo

    def fit(self, X: np.ndarray, y: np.ndarray) -> Hanging:
        self.classes_ = np.unique(y)
        self.n_features_in_ = X.shape[1]
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        return np.tile([0.25, 0.75], (len(X), 1))

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if Path(self.fifo).exists():
            Path(self.fifo).read_bytes()


def let_go(fifo: Path) -> None:
    """Have what hangs go on, and nothing hang any more."""
    hanging = fifo.with_name("let-go")
    fifo.rename(hanging)
    os.close(os.open(hanging, os.O_RDWR | os.O_NONBLOCK))
