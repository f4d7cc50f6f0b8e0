"""A long/flat strategy over bars that the model never saw.

Rules, for probabilities p and bars of the test span:

- flat and p[t] >= proba_entry: buy at open[t + 1]; long and p[t] <= proba_exit: sell at open[t + 1];
- every fill pays `fee_bps + slippage_bps` of the position's value;
- a position that is open at the end is sold at the last close, at the same cost.

A bar's return holds its part from the close before to its open with the position carried in, the fill at the
open, and its part from open to close with the position after the fill:

    r[j] = (1 + before[j] * (open[j] / close[j-1] - 1))
         * (1 - cost * |after[j] - before[j]|)
         * (1 + after[j] * (close[j] / open[j] - 1)) - 1
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Simulation:
    """Outcome, one number a bar: `returns` net of costs, `position` (0 or 1) held from its open to its close.

    `trade_returns`: the net return of every round trip, in order.
    """

    returns: Array
    position: Array
    trade_returns: Array


def simulate(
    open_: Array,
    close: Array,
    probability: Array,
    *,
    proba_entry: float,
    proba_exit: float,
    cost_bps: float,
) -> Simulation:
    """Run the strategy over n bars, all arrays float64 [n]; `cost_bps` is for one side."""
    position = _positions(probability, proba_entry, proba_exit)
    before = np.concatenate(([0.0], position[:-1]))
    overnight = np.concatenate(([0.0], open_[1:] / close[:-1] - 1.0))
    cost = cost_bps / 10_000.0
    growth = (
        (1.0 + before * overnight)
        * (1.0 - cost * np.abs(position - before))
        * (1.0 + position * (close / open_ - 1.0))
    )
    if position.size and position[-1] > 0.0:
        growth[-1] *= 1.0 - cost
    return Simulation(growth - 1.0, position, _trade_returns(position, open_, close, cost))


def _positions(probability: Array, proba_entry: float, proba_exit: float) -> Array:
    position = np.zeros(probability.shape[0])
    holding = False
    for bar in range(1, probability.shape[0]):
        seen = probability[bar - 1]
        holding = seen > proba_exit if holding else seen >= proba_entry
        position[bar] = float(holding)
    return position


def _trade_returns(position: Array, open_: Array, close: Array, cost: float) -> Array:
    change = np.diff(position, prepend=0.0)
    bought, sold = np.flatnonzero(change > 0), np.flatnonzero(change < 0)
    exits = open_[sold]
    if bought.size > sold.size:
        exits = np.append(exits, close[-1])
    return np.asarray(exits / open_[bought] * (1.0 - cost) ** 2 - 1.0)
