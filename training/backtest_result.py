"""What a backtest found, for whoever writes, prints or plots it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from signalserve.features.bars import Bars
from signalserve.trading.metrics import Metrics
from signalserve.trading.rules import TradingRules
from signalserve.trading.simulation import Simulation
from signalserve.training.scoring import ScoringModel


@dataclass(frozen=True)
class Counted:
    """Whether the log counts a backtest as a look at its bars.

    `state`: `recorded`; `evaluation`, where an evaluation on these bars has counted it; `in_sample`, where it has no
    bar after the training; `not_recorded`, where the registry could not be written, and `why` says what kept it.
    `revision` is the event's, and `looks` how many looks at these bars the log knows of; None where there is none.
    """

    state: str
    revision: int | None = None
    looks: int | None = None
    why: str = ""

    @property
    def text(self) -> str:
        """In words."""
        if self.state == "not_recorded":
            return f"NOT RECORDED: nobody counts this look at the bars ({self.why})"
        if self.state == "in_sample":
            return "none: no bar of the span comes after the training, so the gate never judges there"
        if self.state == "evaluation":
            return f"{self.looks} at these bars; its evaluation was this one"
        return f"{self.looks} at these bars, recorded at revision {self.revision}; each raises what the gate asks"


@dataclass(frozen=True)
class BacktestResult:
    """What a backtest found, over n bars.

    `frame`: open, close and probability float64 [n], by the bars' open times; a regressor's probability is NaN, and
    its column `value` the expected return. `classes` and `forward_return` float64 [n]: by the model's own label, NaN
    where it has none; `in_sample`: the span touches the training span; `importances`: features with their shares of
    the whole, the largest first, empty where the model keeps none;
    `counted`: as a look.
    """

    model: ScoringModel
    bars: Bars
    rules: TradingRules
    starting_equity: float
    frame: pd.DataFrame
    classes: NDArray[np.float64]
    forward_return: NDArray[np.float64]
    simulation: Simulation
    metrics: Metrics
    in_sample: bool
    importances: tuple[tuple[str, float], ...]
    counted: Counted
    folder: Path

    @property
    def model_id(self) -> str:
        """The model that was tested."""
        return self.model.entry.model_id

    @property
    def span(self) -> tuple[pd.Timestamp, pd.Timestamp]:
        """Open times of the first and the last bar."""
        return self.frame.index[0], self.frame.index[-1]
