"""The composition root of the lab: the only module of it that reads the configuration."""

from __future__ import annotations

from signalserve.config.settings import Settings
from signalserve.judging import Policy, PromoteGate
from signalserve.lab.parts import Lab
from signalserve.lab.server import ServerLink
from signalserve.registry import open_registry
from signalserve.trading.rules import TradingRules


def lab_of(settings: Settings) -> Lab:
    """The read models of the configured registry; nothing is read or made yet. Close its `server`."""
    registry = open_registry(
        settings.ml.models_dir.resolve(), gate=PromoteGate.of(settings), pins=settings.ml.pinned_ids()
    )
    return Lab.of(
        registry,
        ServerLink(settings.client.target, deadline_ms=settings.lab.status_deadline_ms),
        backtest_dir=settings.backtest.output_dir.resolve(),
        snapshot_dir=settings.live.snapshot_dir.resolve(),
        rules=TradingRules.of(settings.trading),
        policy=Policy.of(settings.promotion),
    )
