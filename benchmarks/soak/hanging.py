"""A model whose loading hangs for as long as a file stands in its way.

A module of its own, which servers import as they unpickle it: PYTHONPATH must name the folder that `benchmarks` is in.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin


class Hanging(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is untyped
    """Answers `score`; loading it reads the FIFO at `fifo`, where there is one, and so hangs."""

    def __init__(self, fifo: str = "", score: float = 0.5) -> None:
        self.fifo = fifo
        self.score = score

    def fit(self, X: np.ndarray, y: np.ndarray) -> Hanging:
        """Learn nothing but the classes and the width."""
        self.classes_ = np.unique(y)
        self.n_features_in_ = X.shape[1]
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """[n, 2], the same in each row."""
        return np.tile([1.0 - self.score, self.score], (len(X), 1))

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if Path(self.fifo).exists():
            Path(self.fifo).read_bytes()


def let_go(fifo: Path) -> None:
    """Have what hangs go on, and nothing hang any more."""
    if fifo.exists():
        hanging = fifo.with_name(f"{fifo.name}-let-go")
        fifo.rename(hanging)
        os.close(os.open(hanging, os.O_RDWR | os.O_NONBLOCK))
