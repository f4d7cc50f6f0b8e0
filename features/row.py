"""One bar's features, with what they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from signalserve.features.rolling import Array


@dataclass(frozen=True, eq=False, slots=True)
class FeatureRow:
    """What `client.predict` takes as it is: float64 [k] `values`, and numpy takes it for them.

    `feature_names`: one a value. `feature_set`: the definition that computed them, such as "core@1".

    >>> row = FeatureRow(np.array([61.5, 0.8]), ("rsi_14", "atr_14"), "core@1")
    >>> float(np.asarray(row)[0])
    61.5
    """

    values: Array
    feature_names: tuple[str, ...]
    feature_set: str

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        """The values."""
        return np.array(self.values, dtype=dtype, copy=copy)

    def __len__(self) -> int:
        """How many features there are."""
        return len(self.values)
