"""The types that every part of this package shares; imports numpy alone."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np

Kind = Literal["classifier", "regressor"]
Output = Literal["probability", "value"]
Matrix: TypeAlias = np.ndarray[Any, Any]
