"""Registries to look at, the lab over real HTTP, and a real gRPC server behind it."""

from __future__ import annotations

import asyncio
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from signalserve.config.settings import Settings
from signalserve.features.synthetic import synthetic_bars
from signalserve.lab.app import create_app
from signalserve.lab.changes import Pace, Stopping
from signalserve.lab.serving import bound_socket
from signalserve.registry import Promotion
from tests.registries import registry_at
from tests.server.wire.conftest import Server
from tests.server.wire.conftest import loop as loop
from tests.small_models import register_copy, sealed_template

TOKEN = {"Authorization": "Bearer t0ken"}


def free_target() -> str:
    """An address where nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{taken.getsockname()[1]}"


def lab_settings(folder: Path, base: Path | None = None, **sections: dict[str, Any]) -> Settings:
    """Settings whose every path is below a folder; the gRPC server is away unless `client` says where it is."""
    values: dict[str, Any] = {
        "ml": {"models_dir": base or folder / "ml_models"},
        "backtest": {"output_dir": folder / "backtests"},
        "live": {"snapshot_dir": folder / "live"},
        "client": {"target": free_target()},
        "lab": {"status_deadline_ms": 2_000},
    }
    for section, changes in sections.items():
        values[section] = values.get(section, {}) | changes
    return Settings(**values)


def with_gate(settings: Settings, **bounds: Any) -> Settings:
    """The same settings with the evidence gate in force, whatever the environment of the tests says."""
    bounds = {"gate": "evidence"} | bounds
    return settings.model_copy(update={"promotion": settings.promotion.model_copy(update=bounds)})


class LabProcess:
    """The lab on a free port, served by uvicorn in a thread of this process."""

    def __init__(self, settings: Settings, **more: Any) -> None:
        self.tokens: dict[str, str] = {}
        """One a role, where the lab knows tokens."""
        self.stopping = Stopping()
        self.app = create_app(settings, stopping=self.stopping, **more)
        self._socket = bound_socket("127.0.0.1", 0)
        self.address = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._server = uvicorn.Server(uvicorn.Config(self.app, log_config=None, timeout_graceful_shutdown=5))
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name="lab")
        self._thread.start()
        # the socket listens already, so a request waits for the server rather than failing
        self.http = httpx.Client(base_url=self.address, timeout=30.0)

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.http.get(path, **more)

    def json(self, path: str, **params: Any) -> Any:
        """A good answer's document."""
        answer = self.http.get(path, params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def close(self) -> None:
        self.http.close()
        self.stopping.set()
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()


OpenLab = Callable[..., LabProcess]


@pytest.fixture
def open_lab() -> Iterator[OpenLab]:
    """Start the lab: `open_lab(settings)`."""
    running: list[LabProcess] = []

    def start(settings: Settings, **more: Any) -> LabProcess:
        running.append(LabProcess(settings, pace=Pace(poll_seconds=0.01), **more))
        return running[-1]

    yield start
    for lab in running:
        lab.close()


@pytest.fixture
def serve(loop: asyncio.AbstractEventLoop) -> Iterator[Callable[[Settings], Server]]:
    """Start a ready gRPC server."""
    running: list[Server] = []

    def start(settings: Settings) -> Server:
        options = settings.server.model_copy(update={"port": 0, "poll_ms": 20, "drain_seconds": 3600.0})
        server = Server(settings.model_copy(update={"server": options}), loop)
        running.append(server)
        server.until(lambda status: status.ready)
        return server

    yield start
    for server in running:
        server.close()


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three sealed models, each following another column."""
    folder = tmp_path_factory.mktemp("templates")
    return [sealed_template(folder / f"t{column}", column=column) for column in range(3)]


@pytest.fixture
def base(tmp_path: Path, templates: list[Path]) -> Path:
    """BTCUSDT/15m: btc0 in production, btc1 registered; ETH-PERP_X/1h: eth2 registered."""
    base = tmp_path / "ml_models"
    register_copy(templates[0], base, "btc0", created_at="2026-01-01T00:00:00+00:00")
    register_copy(templates[1], base, "btc1", created_at="2026-01-02T00:00:00+00:00")
    register_copy(
        templates[2],
        base,
        "eth2",
        symbol="ETH-PERP_X",
        timeframe="1h",
        model_type="XGB",
        created_at="2026-01-03T00:00:00+00:00",
    )
    registry_at(base).promote([Promotion("btc0")])
    return base


@dataclass(frozen=True)
class Workshop:
    """What a day's work leaves: two trained models of SYNTH/15m, a grid, an evaluation, backtests."""

    folder: Path
    champion: str
    challenger: str

    def settings(self, **sections: dict[str, Any]) -> Settings:
        from tests.training.conftest import CONFIG

        # by the rules that it was evaluated by
        return with_gate(lab_settings(self.folder, **{"trading": CONFIG["trading"], **sections}))

    def copied_to(self, folder: Path) -> Workshop:
        shutil.copytree(self.folder, folder)
        return replace(self, folder=folder)


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    from signalserve.training.backtest import BacktestRequest, backtest
    from signalserve.training.evaluation import evaluate
    from signalserve.training.request import TrainRequest
    from signalserve.training.run import train
    from tests.training.conftest import CONFIG

    folder = tmp_path_factory.mktemp("workshop")
    bars = folder / "SYNTH_15m.csv"
    synthetic_bars("SYNTH", 2500, seed=11).to_csv(bars)
    settings = with_gate(
        Settings(**CONFIG), min_bars=100, min_trades=1, min_probability=0.8, min_walk_forward=None
    )
    base = folder / "ml_models"
    ids: list[str] = []
    for kind, grid in (("logreg", None), ("rf", {"max_depth": [2, 4]})):
        request = TrainRequest.from_settings(settings, "SYNTH", model_type=kind, output_dir=base, ohlcv=bars)
        ids.append(train(replace(request, grid=grid, grid_jobs=1)).model_id)
    registry_at(base).promote([Promotion(ids[0])], reason="the first")
    evaluate(settings, ids[1], ohlcv=bars, base_dir=base)
    for model_id in ids:
        backtest(
            BacktestRequest.from_settings(
                settings,
                "SYNTH",
                model_id=model_id,
                ohlcv=bars,
                base_dir=base,
                output_dir=folder / "backtests",
            )
        )
    return Workshop(folder, ids[0], ids[1])
