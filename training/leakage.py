"""No feature may know the future: the features of bars[:t] must equal the first t rows of those of all bars."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from signalserve.training.errors import TrainingError

_RELATIVE, _ABSOLUTE = 1e-9, 1e-12


class LookAheadError(TrainingError):
    """Features that read bars after their own; `columns` names them."""

    def __init__(self, message: str, *, columns: tuple[str, ...]) -> None:
        super().__init__(message)
        self.columns = columns


def check_no_lookahead(
    transform: Callable[[pd.DataFrame], pd.DataFrame], frame: pd.DataFrame, *, cuts: Sequence[int]
) -> None:
    """Compute features of the first t bars, for every t of `cuts`, and compare them with those of all bars.

    Every row before the cut is compared, so a column that is scaled by its mean over all bars is found as well
    as one that peeks at the next bar. Equal means to 1e-9 of the value, or 1e-12; NaN equals NaN.

    Args:
        transform: bars -> features, a row a bar, such as `FeaturePipeline.transform`.
        frame: bars.
        cuts: numbers of bars, from 1 to len(frame) - 1.

    Raises:
        LookAheadError: it names the columns, and the first bar whose features change.
    """
    whole = transform(frame)
    for cut in cuts:
        known = transform(frame.iloc[:cut])
        before = whole.iloc[:cut].to_numpy(dtype=np.float64)
        after = known.to_numpy(dtype=np.float64)
        differs = ~np.isclose(after, before, rtol=_RELATIVE, atol=_ABSOLUTE, equal_nan=True)
        if differs.any():
            columns = tuple(str(name) for name in whole.columns[differs.any(axis=0)])
            bar = whole.index[int(np.flatnonzero(differs.any(axis=1))[0])]
            raise LookAheadError(
                f"{', '.join(columns)} read bars after their own: at {bar} the value changes with what comes"
                f" after {frame.index[cut - 1]}; a model trained on that can't be served",
                columns=columns,
            )


def random_cuts(n: int, *, warmup: int, count: int, seed: int) -> list[int]:
    """Some cuts beyond the warm-up, in order; fewer where there are not so many."""
    choices = np.arange(warmup + 1, n)
    drawn = np.random.default_rng(seed).choice(choices, size=min(count, choices.size), replace=False)
    return sorted(int(cut) for cut in drawn)
