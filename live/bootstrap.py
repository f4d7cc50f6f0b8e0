"""Where a live engine is put together."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from signalserve.client import SignalClient
from signalserve.features.pipeline import FeaturePipeline
from signalserve.live.bars import BarSource
from signalserve.live.engine import LiveEngine, OnBar
from signalserve.live.pipelines import Pipelines
from signalserve.live.scoring import StreamScorer
from signalserve.live.snapshot import SnapshotFile
from signalserve.trading.rules import TradingRules
from signalserve.trading.trader import Trader


def build_engine(
    client: SignalClient,
    source: BarSource,
    pipeline: FeaturePipeline,
    symbol: str,
    timeframe: str,
    *,
    rules: TradingRules,
    starting_equity: float,
    deadline_ms: float,
    snapshot_dir: Path,
    model_id: str | None = None,
    preset: str | None = None,
    on_bar: OnBar | None = None,
    event_times: bool = False,
    settle_seconds: float = 30.0,
    hold_on: Collection[str] = (),
) -> LiveEngine:
    """Build an engine that asks over a stream of the client's, trades on paper and keeps a snapshot.

    `rules` and `starting_equity` are the paper account's; `deadline_ms` is how long a bar waits for its score;
    `snapshot_dir` is made where it is missing; `model_id` pins the model to ask, `preset` the features: none but
    its are computed, whatever is promoted. The other arguments are `LiveEngine`'s. The client stays the caller's.

    Raises:
        UnknownPresetError: there is no such preset.
        ValueError: symbol and timeframe make no file name, or the starting equity is not above zero.
        OSError: the snapshot folder can't be made.
    """
    snapshot = SnapshotFile(snapshot_dir, symbol, timeframe)
    return LiveEngine(
        symbol,
        timeframe,
        source,
        pipeline,
        StreamScorer(client, symbol, timeframe, model_id=model_id, deadline_ms=deadline_ms),
        Trader(rules, starting_equity),
        snapshot,
        on_bar=on_bar,
        pinned_model_id=model_id,
        event_times=event_times,
        settle_seconds=settle_seconds,
        hold_on=hold_on,
        pipelines=Pipelines(client, symbol, timeframe, pipeline, model_id=model_id, preset=preset),
    )
