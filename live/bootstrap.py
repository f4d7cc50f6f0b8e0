"""Where a live engine is put together from the configuration."""

from __future__ import annotations

from pathlib import Path

from signalserve.client import SignalClient
from signalserve.config.settings import Settings
from signalserve.features.pipeline import FeaturePipeline
from signalserve.live.bars import BarSource
from signalserve.live.engine import LiveEngine, OnBar
from signalserve.live.paper import PaperPosition
from signalserve.live.scoring import StreamScorer
from signalserve.live.snapshot import SnapshotFile
from signalserve.live.strategy import MLSignalStrategy


def build_engine(
    settings: Settings,
    client: SignalClient,
    source: BarSource,
    pipeline: FeaturePipeline,
    symbol: str,
    timeframe: str,
    *,
    model_id: str | None = None,
    snapshot_dir: Path | None = None,
    on_bar: OnBar | None = None,
    event_times: bool = False,
    settle_seconds: float = 30.0,
) -> LiveEngine:
    """Build an engine with the thresholds, costs, deadline and snapshot folder of the configuration.

    `model_id` pins the model to ask; the other arguments are `LiveEngine`'s. The client stays the caller's.

    Raises:
        ValueError: symbol and timeframe make no file name.
        OSError: the snapshot folder can't be made.
    """
    live = settings.live
    snapshot = SnapshotFile(live.snapshot_dir if snapshot_dir is None else snapshot_dir, symbol, timeframe)
    return LiveEngine(
        symbol,
        timeframe,
        source,
        pipeline,
        StreamScorer(
            client,
            symbol,
            timeframe,
            pipeline.names,
            model_id=model_id,
            deadline_ms=settings.client.deadline_ms,
        ),
        MLSignalStrategy(live.proba_entry, live.proba_exit, live.warmup_bars),
        PaperPosition(
            live.starting_equity,
            fee_bps=settings.backtest.fee_bps,
            slippage_bps=settings.backtest.slippage_bps,
        ),
        snapshot,
        on_bar=on_bar,
        pinned_model_id=model_id,
        event_times=event_times,
        settle_seconds=settle_seconds,
    )
