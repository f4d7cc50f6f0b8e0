"""Metrics of an account over **all** bars; r are its per-bar returns net of costs. An undefined one is None, never NaN.

- cum_return: prod(1 + r) - 1
- sharpe: mean(r) / std(r, ddof=1) * sqrt(bars per year); 0 where nothing was traded
- bars_per_year: that of the market's own hours (`common.trading_year`), by which all here is annualised
- sortino: mean(r) / sqrt(mean(min(r, 0)^2)) * sqrt(bars per year); None where no bar lost
- max_drawdown: the largest fall of the equity from an earlier high, as a share of that high (0 or positive)
- trades: round trips; hit_rate: share of them with a net gain; exposure: share of bars held
- turnover: fills a bar; buy_hold_return: last close / first close - 1, without costs
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from signalserve.trading.simulation import Simulation

Array = NDArray[np.float64]
Metrics = dict[str, float | int | None]


def account_metrics(simulation: Simulation, close: Array, *, bars_per_year: float) -> Metrics:
    """Metrics of a simulation over n >= 2 bars with these closes."""
    returns = simulation.returns
    equity = np.asarray(np.cumprod(1.0 + returns), dtype=np.float64)
    gains = np.array([trade.net_return for trade in simulation.trades])
    return {
        "cum_return": float(equity[-1] - 1.0),
        "sharpe": sharpe(returns, bars_per_year),
        "sortino": sortino(returns, bars_per_year),
        "bars_per_year": bars_per_year,
        "max_drawdown": float(drawdowns(equity, 1.0).max()),
        "trades": int(gains.size),
        "hit_rate": float((gains > 0.0).mean()) if gains.size else None,
        "exposure": float(np.abs(simulation.position).mean()),
        "turnover": float(len(simulation.fills) / returns.size),
        "buy_hold_return": float(close[-1] / close[0] - 1.0),
    }


def sharpe(returns: Array, bars_per_year: float) -> float:
    """Annualised Sharpe ratio of per-bar returns, float64 [n]; 0 where they don't vary."""
    if returns.size < 2:
        return 0.0
    spread = float(returns.std(ddof=1))
    if spread <= 1e-15:
        return 0.0
    return float(returns.mean()) / spread * math.sqrt(bars_per_year)


def sortino(returns: Array, bars_per_year: float) -> float | None:
    """Annualised Sortino ratio against a target of 0 (Sortino & van der Meer, 1991)."""
    downside = math.sqrt(float((np.minimum(returns, 0.0) ** 2).mean())) if returns.size else 0.0
    if downside <= 1e-15:
        return None
    return float(returns.mean()) / downside * math.sqrt(bars_per_year)


def drawdowns(equity: Array, starting_equity: float) -> Array:
    """At each close the fall from the high before, the start included, as a share of it; float64 [n], 0 to 1."""
    high = np.maximum.accumulate(np.concatenate(([starting_equity], equity)))[1:]
    return np.asarray(1.0 - equity / high, dtype=np.float64)
