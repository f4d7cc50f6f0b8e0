"""From bars to a feature matrix: one pipeline for training and for live.

Two lengths matter to a caller:

- `warmup_bars`: the first rows of any frame, for which no features exist (all NaN). Later rows are whole.
- `window_bars`: features of the last bar of `frame[-window_bars:]` equal those of the whole history to 1e-9
  of their value (1e-12 for values near zero). A live engine keeps so many bars and no more. Most columns read
  a finite window and are equal to the last bit from `warmup_bars` on. The recursive ones forget: an n-period
  EMA keeps (n-1)/(n+1) of its past at each bar, a Wilder average (n-1)/n; after `window_bars` that leaves
  less than 1e-13 of where the history began.

So a row is the same, live and in training, once both have seen `window_bars` bars or the same first bar.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd

from signalserve.features import columns
from signalserve.features.errors import BarsError, FeatureError, UnknownPresetError
from signalserve.features.rolling import Array
from signalserve.features.row import FeatureRow
from signalserve.features.table import NUMBER_COLUMNS, PRICE_COLUMNS

PIPELINE_VERSION = "1"
"""Changes whenever a column's values change; a model remembers the version that it was trained with."""

Group = Callable[[columns.BarArrays], columns.Columns]

_CORE: tuple[Group, ...] = (
    partial(columns.returns, horizons=(1, 2, 3, 4, 8, 16, 32, 96)),
    partial(columns.average_distances, simple=(10, 20, 50, 100, 200), exponential=(12, 26)),
    partial(columns.relative_strength, periods=(7, 14)),
    columns.macd,
    columns.true_range,
    partial(columns.bollinger, windows=(20,)),
    partial(columns.stochastic, periods=(14,)),
    partial(columns.volume, windows=(20, 96), ratio_window=20),
    partial(columns.volatility, windows=(16, 96), pair=(16, 96)),
    columns.candle,
    columns.calendar,
)

_EXTENDED: tuple[Group, ...] = (
    *_CORE,
    partial(columns.returns, horizons=(6, 12, 24, 48, 192)),
    partial(columns.lagged_returns, lags=(1, 2, 3)),
    partial(columns.average_distances, simple=(), exponential=(50,)),
    partial(columns.average_ratios, pairs=((10, 50), (50, 200))),
    partial(columns.relative_strength, periods=(28,)),
    partial(columns.bollinger, windows=(50,)),
    partial(columns.stochastic, periods=(56,)),
    partial(columns.channel, windows=(20, 96)),
    columns.trend_strength,
    columns.return_shape,
    columns.volume_flow,
)

_PRESETS: dict[str, tuple[tuple[Group, ...], int, int]] = {
    # groups, warm-up, window: the slowest memories are EMA(26) and RSI(14), then RSI(28) and EMA(50)
    "core": (_CORE, 200, 640),
    "extended": (_EXTENDED, 200, 1200),
}

PRESETS = tuple(_PRESETS)

LONGEST_WINDOW = max(window for _, _, window in _PRESETS.values())
"""Bars that are enough for every preset, for who may change from one to another."""


class FeaturePipeline:
    """The columns of a preset.

    >>> pipeline = FeaturePipeline("core")
    >>> len(pipeline.names), pipeline.warmup_bars, pipeline.window_bars
    (40, 200, 640)

    `feature_set` names the definition, by default preset and version, such as "core@1"; another name is the caller's
    word that it is the same, for a model that was trained under that name.

    Raises:
        UnknownPresetError: there is no such preset.
    """

    def __init__(self, preset: str = "core", *, feature_set: str | None = None) -> None:
        if preset not in _PRESETS:
            raise UnknownPresetError(f"no feature preset {preset!r}; there are {', '.join(PRESETS)}")
        self.preset = preset
        self.version = PIPELINE_VERSION
        self.feature_set = f"{preset}@{PIPELINE_VERSION}" if feature_set is None else feature_set
        self._groups, self.warmup_bars, self.window_bars = _PRESETS[preset]
        self.names: tuple[str, ...] = tuple(self._compute(_one_bar()))

    def __repr__(self) -> str:
        return f"FeaturePipeline({self.preset!r})"

    def transform(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Features of every bar.

        Args:
            frame: bars as `Bars.frame` has them: increasing UTC DatetimeIndex; the five number columns.

        Returns:
            float64 [bars, k], the frame's index, columns `names`; NaN in the first `warmup_bars` rows and
            nowhere else.

        Raises:
            BarsError: a column is missing, the index is no increasing UTC index, or a price is not finite and
                above zero.
            TypeError: it is no DataFrame.
        """
        _check(frame)
        matrix = np.full((len(frame), len(self.names)), np.nan)
        if len(frame) > self.warmup_bars:
            computed = self._compute(columns.BarArrays.from_frame(frame))
            for place, name in enumerate(self.names):
                matrix[self.warmup_bars :, place] = computed[name][self.warmup_bars :]
            self._refuse_holes(matrix)
        return pd.DataFrame(matrix, index=frame.index, columns=list(self.names))

    def latest(self, frame: pd.DataFrame) -> FeatureRow:
        """Features of the last bar, from the last `window_bars` bars of the frame, with their names; to be predicted.

        Raises:
            BarsError: as for `transform`, or there are not more than `warmup_bars` bars.
            TypeError: as for `transform`.
        """
        _require_frame(frame)
        if len(frame) <= self.warmup_bars:
            raise BarsError(f"{len(frame)} bars are too few; features need more than {self.warmup_bars}")
        row = self.transform(frame.iloc[-self.window_bars :]).to_numpy()[-1]
        return FeatureRow(np.asarray(row, dtype=np.float64), self.names, self.feature_set)

    def _compute(self, bars: columns.BarArrays) -> columns.Columns:
        computed: columns.Columns = {}
        for group in self._groups:
            computed.update(group(bars))
        return computed

    def _refuse_holes(self, matrix: Array) -> None:
        """A NaN beyond the warm-up would reach a model: stop it here."""
        holes = ~np.isfinite(matrix[self.warmup_bars :])
        if holes.any():
            names = [self.names[int(place)] for place in np.flatnonzero(np.any(holes, axis=0))]
            raise FeatureError(
                f"{', '.join(names)} have no value after the warm-up; prices or volumes are beyond what"
                " float64 can square, or this process has set TA-Lib's unstable period"
            )


def _one_bar() -> columns.BarArrays:
    """A single bar: enough to learn the names."""
    index = pd.DatetimeIndex(["2000-01-01"], tz="UTC")
    return columns.BarArrays.from_frame(pd.DataFrame(dict.fromkeys(NUMBER_COLUMNS, 1.0), index=index))


def _require_frame(frame: object) -> None:
    if not isinstance(frame, pd.DataFrame):
        raise TypeError(
            f"bars are a {type(frame).__name__}; give a DataFrame, as read_bars(path, timeframe=...).frame is one"
        )


def _check(frame: pd.DataFrame) -> None:
    _require_frame(frame)
    missing = [name for name in NUMBER_COLUMNS if name not in frame.columns]
    if missing:
        raise BarsError(f"column {', '.join(missing)} is missing; bars have {', '.join(NUMBER_COLUMNS)}")
    index = frame.index
    if not isinstance(index, pd.DatetimeIndex) or str(index.tz) != "UTC":
        raise BarsError("bars need a DatetimeIndex in UTC (frame.index.tz_localize('UTC') or tz_convert)")
    if not (index.is_monotonic_increasing and index.is_unique):
        raise BarsError("bars are not in strictly increasing order of time; sort them and drop repetitions")
    values = frame[list(NUMBER_COLUMNS)].to_numpy(dtype=np.float64)
    good = np.isfinite(values)
    good[:, : len(PRICE_COLUMNS)] &= values[:, : len(PRICE_COLUMNS)] > 0.0
    good[:, len(PRICE_COLUMNS) :] &= values[:, len(PRICE_COLUMNS) :] >= 0.0
    if not good.all():
        row, column = (int(place) for place in np.argwhere(~good)[0])
        raise BarsError(
            f"{NUMBER_COLUMNS[column]} {float(values[row, column])!r} is not a usable number",
            line=row + 1,
            timestamp=str(index[row]),
            unit="row",
        )
