"""The backtests of a model: which there are, and one of them as series.

1. A backtest is a folder of `backtest.output_dir` whose metrics.json names the model; its own name means nothing.
2. A name is looked up among the folders that were found, so it leads nowhere else.
3. A long series is thinned for plotting: of each run of bars the lowest and the highest equity and the deepest
   drawdown stay, and it says so. Trades and positions are never thinned by bars; they are counted and cut off instead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from signalserve.lab.files import Found, Kept, listed, read_object, read_rows, signature
from signalserve.lab.plain import mapping, moment, number, number_of_text, plain, text_of

if TYPE_CHECKING:
    import pandas as pd

METRICS_FILE, EQUITY_FILE, TRADES_FILE = "metrics.json", "equity.csv", "trades.csv"
MOST_TRADES = 5_000
_COLUMNS = ("close", "probability", "position", "equity", "drawdown")
_SIDES = {1: "long", -1: "short"}


@dataclass(frozen=True)
class Backtest:
    """One backtest. `in_sample`: it touches the bars of the training.

    `look` is whether the log counts it as a look at its bars, by `training.backtest_result`'s words (`recorded`,
    `evaluation`, `in_sample`, `not_recorded`); empty where it does not say. `look_text` says the same in words.
    """

    name: str
    model_id: str
    symbol: str
    timeframe: str
    in_sample: bool
    start: datetime | None
    end: datetime | None
    bars: int | None
    starting_equity: float | None
    final_equity: float | None
    metrics: Mapping[str, Any]
    rules: Mapping[str, Any]
    data: Mapping[str, Any]
    model_digest: str
    written: datetime | None
    look: str = ""
    look_text: str = ""


@dataclass(frozen=True)
class Trade:
    """A round trip; times are those of the fills. `open_at_end`: it was closed by the end of the bars."""

    entry_time: datetime | None
    exit_time: datetime | None
    side: str
    entry_price: float | None
    exit_price: float | None
    pnl: float | None
    net_return: float | None
    fees: float | None
    bars: int | None
    open_at_end: bool


@dataclass(frozen=True)
class Holding:
    """A run of bars with one position, `long` or `short`; `end` is the last bar's open time."""

    start: datetime
    end: datetime
    side: str


@dataclass(frozen=True)
class Series:
    """A backtest bar by bar, each list of the same length, by the bars' open times.

    `equity` and `buy_hold` are money at a bar's close, the latter that of buying the first close with the same start
    and no costs; `drawdown` a share of the high before, 0 or positive; `position` 1, 0 or -1. `bars` is the length
    before thinning. `trade_count` counts all trades, of which `trades` has the first.
    """

    backtest: Backtest
    times: tuple[datetime, ...]
    close: tuple[float | None, ...]
    probability: tuple[float | None, ...]
    position: tuple[int, ...]
    equity: tuple[float | None, ...]
    drawdown: tuple[float | None, ...]
    buy_hold: tuple[float | None, ...]
    holdings: tuple[Holding, ...]
    trades: tuple[Trade, ...]
    trade_count: int
    bars: int
    thinned: bool
    problem: str = ""


class Backtests:
    """The backtests of one folder."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self._summaries: Kept[Backtest | None] = Kept(20_000)
        self._frames: Kept[Found[pd.DataFrame]] = Kept(8)

    def all(self) -> list[Backtest]:
        """Every backtest, the newest first."""
        found: list[Backtest] = []
        for entry in listed(self.folder):
            path = self.folder / entry.name / METRICS_FILE
            summary = self._summaries.get((path, signature(path)), partial(_summary, path))
            if summary is not None:
                found.append(summary)
        return sorted(found, key=lambda item: (item.written.timestamp() if item.written else 0.0, item.name))[
            ::-1
        ]

    def of(self, model_id: str) -> list[Backtest]:
        """A model's backtests, the newest first."""
        return [item for item in self.all() if item.model_id == model_id]

    def find(self, model_id: str, name: str = "") -> Backtest | None:
        """A model's backtest of this name, or its newest; one that is out of sample goes first. None for none."""
        found = self.of(model_id)
        if name:
            return next((item for item in found if item.name == name), None)
        return next((item for item in found if not item.in_sample), found[0] if found else None)

    def series(self, backtest: Backtest, max_points: int = 2_000) -> Series:
        """A backtest bar by bar, thinned to about `max_points` (at least 10)."""
        frame = self.frame(backtest)
        trades = self._trades(backtest)
        held = trades.value or []
        problem = "; ".join(text for text in (frame.problem, trades.problem) if text)
        if frame.value is None:
            return Series(
                backtest,
                (),
                (),
                (),
                (),
                (),
                (),
                (),
                (),
                tuple(held[:MOST_TRADES]),
                len(held),
                0,
                False,
                problem,
            )
        values = {name: frame.value[name].to_numpy(np.float64) for name in _COLUMNS}
        times = [stamp.to_pydatetime() for stamp in frame.value.index]
        position = np.nan_to_num(values["position"]).clip(-1, 1).astype(int)
        start = backtest.starting_equity
        first = values["close"][0] if len(times) else math.nan
        buy_hold = values["close"] * ((start if start is not None else math.nan) / first)
        places = thinned(values["equity"], values["drawdown"], max(10, max_points))

        def chosen(column: NDArray[np.float64]) -> tuple[float | None, ...]:
            return tuple(number(value) for value in column[places].tolist())

        return Series(
            backtest=backtest,
            times=tuple(times[place] for place in places),
            close=chosen(values["close"]),
            probability=chosen(values["probability"]),
            position=tuple(position[places].tolist()),
            equity=chosen(values["equity"]),
            drawdown=chosen(values["drawdown"]),
            buy_hold=chosen(buy_hold),
            holdings=_holdings(times, position),
            trades=tuple(held[:MOST_TRADES]),
            trade_count=len(held),
            bars=len(times),
            thinned=len(places) < len(times),
            problem=problem,
        )

    def frame(self, backtest: Backtest) -> Found[pd.DataFrame]:
        """equity.csv as it is, by open time in UTC; treat it as read-only.

        Its columns are close, probability, position, equity and drawdown.
        """
        path = self.folder / backtest.name / EQUITY_FILE
        return self._frames.get((path, signature(path)), lambda: _frame(path))

    def signature(self, backtest: Backtest) -> tuple[object, ...]:
        """What changes when a backtest's files do."""
        folder = self.folder / backtest.name
        return (folder, *(signature(folder / name) for name in (METRICS_FILE, EQUITY_FILE, TRADES_FILE)))

    def folder_signature(self) -> tuple[object, ...]:
        """What changes when a backtest is written, replaced or deleted."""
        return (signature(self.folder),)

    def _trades(self, backtest: Backtest) -> Found[list[Trade]]:
        rows = read_rows(self.folder / backtest.name / TRADES_FILE)
        if rows.value is None:
            return Found(None, rows.problem)
        return Found([_trade(row) for row in rows.value])


def thinned(equity: NDArray[np.float64], drawdown: NDArray[np.float64], max_points: int) -> NDArray[np.int64]:
    """Places of the points to draw, ascending; of each run of bars both ends of the equity and the deepest drawdown."""
    count = equity.size
    if count <= max_points:
        return np.arange(count)
    places = {0, count - 1}
    edges = np.linspace(0, count, max(2, (max_points - 2) // 3) + 1).astype(int)
    for start, end in pairwise(edges.tolist()):
        part = equity[start:end]
        if part.size == 0 or np.isnan(part).all():
            continue
        places |= {start + int(np.nanargmin(part)), start + int(np.nanargmax(part))}
        fall = drawdown[start:end]
        if not np.isnan(fall).all():
            places.add(start + int(np.nanargmax(fall)))
    return np.array(sorted(places))


def _summary(path: Path) -> Backtest | None:
    """What metrics.json says; None where the folder is no backtest."""
    found = read_object(path)
    values = found.value
    if values is None or not isinstance(values.get("model_id"), str):
        return None
    span = mapping(values.get("span"))
    bars = number(span.get("bars"))
    look = mapping(values.get("look"))
    try:
        written = path.stat().st_mtime
    except OSError:
        written = 0.0
    return Backtest(
        name=path.parent.name,
        model_id=text_of(values["model_id"]),
        symbol=text_of(values.get("symbol")),
        timeframe=text_of(values.get("timeframe")),
        in_sample=values.get("in_sample") is not False,  # what does not say so is not believed to be clean
        start=moment(span.get("start")),
        end=moment(span.get("end")),
        bars=int(bars) if bars is not None else None,
        starting_equity=number(values.get("starting_equity")),
        final_equity=number(values.get("final_equity")),
        metrics=plain(mapping(values.get("metrics"))),
        rules=plain(mapping(values.get("rules"))),
        data=plain(mapping(values.get("data"))),
        model_digest=text_of(values.get("model_digest")),
        written=datetime.fromtimestamp(written, UTC),
        look=text_of(look.get("state")),
        look_text=text_of(look.get("text")),
    )


def _frame(path: Path) -> Found[pd.DataFrame]:
    import pandas as pd  # a second, which a process that shows no backtest need not wait for

    if not path.is_file():
        return Found(None, f"{path.name} is missing")
    try:
        frame = pd.read_csv(path, index_col=0)
        index = pd.to_datetime(frame.index, utc=True, format="ISO8601")
        columns = {name: pd.to_numeric(frame[name], errors="coerce").to_numpy() for name in _COLUMNS}
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        return Found(None, f"{path.name} can't be read: {' '.join(text_of(error).split())}")
    whole = pd.DataFrame(columns, index=index)
    whole = whole[whole.index.notna()]
    if whole.empty:
        return Found(None, f"{path.name} has no bars")
    return Found(whole[~whole.index.duplicated()].sort_index())


def _trade(row: Mapping[str, str]) -> Trade:
    bars = number_of_text(row.get("bars"))
    return Trade(
        entry_time=moment(row.get("entry_time")),
        exit_time=moment(row.get("exit_time")),
        side=text_of(row.get("side")).lower(),
        entry_price=number_of_text(row.get("entry_price")),
        exit_price=number_of_text(row.get("exit_price")),
        pnl=number_of_text(row.get("pnl")),
        net_return=number_of_text(row.get("net_return")),
        fees=number_of_text(row.get("fees")),
        bars=int(bars) if bars is not None else None,
        open_at_end=row.get("open_at_end") == "True",
    )


def _holdings(times: list[datetime], position: NDArray[np.int64]) -> tuple[Holding, ...]:
    if not times:
        return ()
    turns = [0, *(np.flatnonzero(np.diff(position)) + 1).tolist(), len(times)]
    return tuple(
        Holding(times[start], times[end - 1], _SIDES[side])
        for start, end in pairwise(turns)
        if (side := int(position[start]))
    )
