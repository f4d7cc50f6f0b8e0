"""Two to four equity curves on the same bars, and whether one is better than another or was lucky.

1. Of each model one backtest is taken: out of sample before in sample, then those that share the most time.
2. Only bars that every one of them has count; each curve starts at 1 and compounds its own per-bar returns.
3. The bootstrap is the gate's (`judging.resampling`), on the difference of per-bar returns of these bars.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from signalserve.judging import resample, summary_of
from signalserve.lab.backtests import Backtest, Backtests, thinned
from signalserve.lab.histogram import histogram
from signalserve.lab.plain import number
from signalserve.trading.metrics import drawdowns

if TYPE_CHECKING:
    import pandas as pd

_MOST_OF_EACH = 8


@dataclass(frozen=True)
class Overlay:
    """Curves on common bars: `equity` has one list a model, starting from 1; `buy_hold` likewise, without costs.

    `bars` counts the common bars before thinning. `in_sample`: some backtest touches its model's training bars, so that
    the curves prove nothing. `problem` says why there are none.
    """

    backtests: tuple[str, ...]
    start: datetime | None
    end: datetime | None
    bars: int
    times: tuple[datetime, ...]
    equity: tuple[tuple[float | None, ...], ...]
    buy_hold: tuple[float | None, ...]
    in_sample: bool
    thinned: bool
    problem: str = ""


@dataclass(frozen=True)
class Distribution:
    """The resampled means of the difference in per-bar returns, challenger minus champion.

    `edges` has one more number than `counts`. `observed` is the difference's own mean, `probability` that the
    challenger is better; `low` and `high` hold 90 % of the means.
    """

    challenger: str
    champion: str
    bars: int
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    observed: float
    probability: float
    low: float
    high: float
    block_bars: float
    resamples: int
    seed: int


@dataclass(frozen=True)
class Common:
    """On the bars that all have, each float64 [models, n]: per-bar returns, positions (-1, 0 or 1), and closes.

    A close that equity.csv lacks is NaN.
    """

    backtests: tuple[Backtest, ...]
    index: pd.Index[Any]
    returns: NDArray[np.float64]
    position: NDArray[np.float64]
    close: NDArray[np.float64]


def common_bars(backtests: Backtests, model_ids: Sequence[str]) -> Common | str:
    """What the models' backtests share; a text that says why where they share nothing."""
    choices = [backtests.of(model_id)[:_MOST_OF_EACH] for model_id in model_ids]
    without = [model_id for model_id, found in zip(model_ids, choices, strict=True) if not found]
    if without:
        return f"no backtest of {', '.join(without)}; run `signalserve backtest --model-id ...`"
    chosen = max(product(*choices), key=_worth)
    frames = []
    for backtest in chosen:
        found = backtests.frame(backtest)
        if found.value is None:
            return f"{backtest.name}: {found.problem}"
        frames.append(found.value)
    index = frames[0].index
    for frame in frames[1:]:
        index = index.intersection(frame.index)
    index = index.sort_values()
    if len(index) < 2:
        return "their backtests have no bars in common; run `signalserve backtest` on one span for each"
    returns = np.array(
        [
            _returns(frame, backtest).loc[index].to_numpy()
            for frame, backtest in zip(frames, chosen, strict=True)
        ]
    )
    if not np.isfinite(returns).all():
        return "a backtest has bars without an equity"
    held = np.array([frame.loc[index, "position"].to_numpy(np.float64) for frame in frames])
    close = np.array([frame.loc[index, "close"].to_numpy(np.float64) for frame in frames])
    return Common(tuple(chosen), index, returns, np.nan_to_num(held).clip(-1.0, 1.0), close)


def overlay_of(common: Common, max_points: int) -> Overlay:
    """The curves, thinned to about `max_points`."""
    curves = np.cumprod(1.0 + common.returns, axis=1)
    count = curves.shape[1]
    each = max(10, max_points // len(curves))
    places = np.unique(np.concatenate([thinned(curve, drawdowns(curve, 1.0), each) for curve in curves]))
    if count <= max_points:
        places = np.arange(count)
    times = [stamp.to_pydatetime() for stamp in common.index[places]]
    hold = common.close[0] / common.close[0, 0]
    return Overlay(
        backtests=tuple(item.name for item in common.backtests),
        start=common.index[0].to_pydatetime(),
        end=common.index[-1].to_pydatetime(),
        bars=count,
        times=tuple(times),
        equity=tuple(tuple(number(value) for value in curve[places].tolist()) for curve in curves),
        buy_hold=tuple(number(value) for value in hold[places].tolist()),
        in_sample=any(item.in_sample for item in common.backtests),
        thinned=len(places) < count,
    )


def no_overlay(problem: str) -> Overlay:
    """The absence of curves, and why."""
    return Overlay((), None, None, 0, (), (), (), False, False, problem)


def distribution_of(
    challenger: str,
    champion: str,
    difference: NDArray[np.float64],
    *,
    resamples: int,
    block_bars: float | None,
    seed: int,
) -> Distribution:
    """Resample the difference in per-bar returns, float64 [n], n at least 2."""
    drawn = resample(difference, resamples=resamples, block_bars=block_bars, seed=seed)
    summary = summary_of(difference, drawn)
    edges, counts = histogram(drawn.means)
    return Distribution(
        challenger=challenger,
        champion=champion,
        bars=difference.size,
        edges=edges,
        counts=counts,
        observed=summary.mean,
        probability=summary.probability,
        low=summary.low,
        high=summary.high,
        block_bars=summary.block_bars,
        resamples=summary.resamples,
        seed=seed,
    )


def _worth(chosen: tuple[Backtest, ...]) -> tuple[int, float, float]:
    """Out of sample, then the most time in common, then the newest."""
    clean = sum(not item.in_sample for item in chosen)
    starts = [item.start for item in chosen if item.start is not None]
    ends = [item.end for item in chosen if item.end is not None]
    shared = min(ends) - max(starts) if len(starts) == len(ends) == len(chosen) else timedelta(seconds=-1)
    newest = min(item.written.timestamp() if item.written else 0.0 for item in chosen)
    return clean, max(-1.0, shared.total_seconds()), newest


def _returns(frame: pd.DataFrame, backtest: Backtest) -> pd.Series[float]:
    equity = frame["equity"]
    before = equity.shift(1)
    if backtest.starting_equity:
        before.iloc[0] = backtest.starting_equity
    else:
        before.iloc[0] = equity.iloc[0]
    return equity / before - 1.0
