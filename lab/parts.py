"""What the lab is made of: every read model of one registry, and the way to its server."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from signalserve.judging import Policy
from signalserve.lab.audit import Audit
from signalserve.lab.backtests import Backtests
from signalserve.lab.catalogue import Catalogue
from signalserve.lab.compare import Comparisons
from signalserve.lab.detail import Models
from signalserve.lab.fleet import Fleet
from signalserve.lab.history import Histories
from signalserve.lab.live import LiveEngines
from signalserve.lab.preview import Previews
from signalserve.lab.server import ServerLink
from signalserve.lab.trail import Trail
from signalserve.registry import Registry
from signalserve.registry.errors import StorageError
from signalserve.trading.rules import TradingRules


@dataclass(frozen=True)
class Lab:
    """The read models, each of which says what it answers. None of them writes anything."""

    registry: Registry
    trail: Trail
    catalogue: Catalogue
    models: Models
    backtests: Backtests
    comparisons: Comparisons
    histories: Histories
    audit: Audit
    live: LiveEngines
    previews: Previews
    server: ServerLink
    fleet: Fleet

    def warm(self) -> None:
        """Read the registry once, so that the first page need not; one that can't be read is the pages' to say."""
        with suppress(StorageError):
            self.registry.view()
            self.trail.events()

    @classmethod
    def of(
        cls,
        registry: Registry,
        server: ServerLink,
        *,
        others: Sequence[ServerLink] = (),
        backtest_dir: Path | str,
        snapshot_dir: Path | str,
        rules: TradingRules,
        policy: Policy,
    ) -> Lab:
        """Build them.

        Args:
            registry: with the gate by which promotes are judged.
            server: the way to the gRPC server.
            others: further servers, that are looked at and never asked to change anything.
            backtest_dir: `backtest.output_dir`.
            snapshot_dir: `live.snapshot_dir`.
            rules: what is traded by; its thresholds are drawn.
            policy: the bounds of the gate; its bootstrap is what comparisons resample by.
        """
        thresholds = (rules.proba_entry, rules.proba_exit)
        trail = Trail(registry.store)
        catalogue = Catalogue(registry, trail)
        audit = Audit(registry, trail)
        backtests = Backtests(backtest_dir)
        live = LiveEngines(snapshot_dir, thresholds)
        return cls(
            registry=registry,
            trail=trail,
            catalogue=catalogue,
            models=Models(registry, trail, catalogue, audit, thresholds),
            backtests=backtests,
            comparisons=Comparisons(registry, catalogue, backtests, policy),
            histories=Histories(registry, trail),
            audit=audit,
            live=live,
            previews=Previews(registry, catalogue, live),
            server=server,
            fleet=Fleet([server, *others]),
        )
