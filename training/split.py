"""A split that goes forward in time.

    first ........ train ........ | embargo: horizon bars | ........ test ........ n
                                  ^ their labels would read closes of the test span

A training bar's label reads `horizon` bars ahead; leaving out that many bars before the test span keeps every
close of the test span out of the fit.
"""

from __future__ import annotations

from dataclasses import dataclass

from training.errors import TrainingError


@dataclass(frozen=True)
class Split:
    """Two ranges of bar positions: `train` ends `embargo` bars before `test` starts."""

    train: range
    test: range
    embargo: int


def chronological_split(n_bars: int, *, first: int, test_fraction: float, embargo: int) -> Split:
    """Split bars `first` to `n_bars` into an earlier and a later part.

    Args:
        n_bars: all bars, the warm-up included.
        first: the first bar that has features.
        test_fraction: share of the usable bars that goes to the end, in (0, 1).
        embargo: bars left out between the parts; the label's horizon.

    Raises:
        TrainingError: there are too few bars for two parts.

    >>> chronological_split(110, first=10, test_fraction=0.25, embargo=4)
    Split(train=range(10, 81), test=range(85, 110), embargo=4)
    """
    usable = n_bars - first
    test_bars = round(usable * test_fraction)
    boundary = n_bars - test_bars
    split = Split(range(first, boundary - embargo), range(boundary, n_bars), embargo)
    if usable <= 0 or len(split.train) < 1 or len(split.test) < 2:
        raise TrainingError(
            f"{n_bars} bars are too few: {first} warm the features up, {embargo} are the embargo, and the rest"
            " must leave something to fit and to test; give a longer file"
        )
    return split
