"""Real models in a real registry, a real server on a free port, in this process or in its own."""

import asyncio
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import joblib
import numpy as np
import pytest
import yaml
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from signalserve.client import SignalClient, SignalServeError
from signalserve.client.errors import from_rpc_error
from signalserve.config.settings import Settings
from signalserve.registry import ModelMetadata, new_run, promote_model, register_model
from signalserve.server.bootstrap import RunningServer, running_server
from signalserve.v1 import prediction_pb2, prediction_service_pb2_grpc, registry_service_pb2_grpc
from tests.registries import gate_of
from tests.server.conftest import ROOT, settings_of

NAMES = ["return_1", "rsi_14", "atr_14", "volume_z"]
LONG_MS = 60_000.0


def training_rows() -> tuple[np.ndarray, np.ndarray]:
    """Features [400, 4] and classes [400]."""
    random = np.random.default_rng(3)
    X = random.normal(size=(400, len(NAMES)))
    return X, (X[:, 0] + 0.3 * random.normal(size=400) > 0).astype(int)


def save_model(
    base: Path,
    symbol: str,
    model_type: str,
    model: Any,
    X: np.ndarray,
    names: list[str] = NAMES,
    timeframe: str = "15m",
) -> str:
    """Write a run directory and register it; gives the model_id."""
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    with new_run(base, symbol, timeframe, model_type, clock=lambda: moment) as run:
        joblib.dump(model, run.path / "model.joblib")
        meta = ModelMetadata(
            run.model_id,
            symbol,
            timeframe,
            model_type,
            created_at=run.created_at,
            feature_cols=list(names),
            metrics={"cum_return": 0.12, "sharpe": 1.5},
            feature_importances=dict.fromkeys(names, 0.25),
        )
        meta.write(run.path / "meta.json")
        run.commit()
    register_model(meta, base, model=model, reference=X)
    return run.model_id


@dataclass
class Registry:
    """A registry folder and the fitted models in it, by their id."""

    base: Path
    models: dict[str, Any] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> str:
        return self.ids[name]

    def add(self, name: str, symbol: str, model_type: str, model: Any, X: np.ndarray) -> None:
        model_id = save_model(self.base, symbol, model_type, model, X)
        self.ids[name], self.models[model_id] = model_id, model

    def native(self, name: str, rows: np.ndarray) -> np.ndarray:
        """What the fitted model itself says."""
        return self.models[self.ids[name]].predict_proba(rows)[:, 1]

    def copied_to(self, folder: Path) -> "Registry":
        shutil.copytree(self.base, folder)
        return Registry(folder, self.models, self.ids)

    def edit_index(self, change: Callable[[str], str]) -> None:
        """Edit registry_index.csv by hand."""
        path = self.base / "registry_index.csv"
        path.write_text(change(path.read_text()))

    def damage(self, name: str, file: str = "model.onnx") -> None:
        """Flip one byte of a model's file."""
        path = self.base / self.ids[name] / file
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0x01
        path.write_bytes(bytes(content))


@pytest.fixture(scope="session")
def master(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """BTCUSDT/15m: a in production, b, c; ETHUSDT/15m: eth in production; SOLUSDT/15m: sol, native, takes NaN."""
    registry = Registry(tmp_path_factory.mktemp("master") / "models")
    X, y = training_rows()
    registry.add("a", "BTCUSDT", "logreg", LogisticRegression().fit(X, y), X)
    registry.add("b", "BTCUSDT", "rf", RandomForestClassifier(5, max_depth=4, random_state=0).fit(X, y), X)
    registry.add("c", "BTCUSDT", "logreg", LogisticRegression(C=0.01).fit(X, y), X)
    registry.add("eth", "ETHUSDT", "logreg", LogisticRegression(C=0.5).fit(X, y), X)
    gaps = X.copy()
    gaps[::7, 0] = np.nan
    hist = HistGradientBoostingClassifier(max_iter=5, random_state=0).fit(gaps, y)
    registry.add("sol", "SOLUSDT", "hist_gb", hist, gaps)
    for name in ("a", "eth"):
        promote_model(registry[name], base_dir=registry.base, gate=gate_of())
    return registry


@pytest.fixture
def registry(master: Registry, tmp_path: Path) -> Registry:
    """A copy of the registry for one test."""
    return master.copied_to(tmp_path / "models")


@pytest.fixture
def row() -> np.ndarray:
    """One row [4]."""
    return training_rows()[0][7]


@pytest.fixture(scope="session")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop in a thread of its own, where every server of this process runs."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="server-loop")
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


class Server:
    """A server in this process, and what reaches it."""

    def __init__(self, settings: Settings, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._stop = asyncio.Event()
        self._started = threading.Event()
        self.parts: RunningServer | None = None
        self._life = asyncio.run_coroutine_threadsafe(self._run(settings), loop)
        self._started.wait()
        if self.parts is None:
            self._life.result()
        assert self.parts is not None
        self.target = f"127.0.0.1:{self.parts.port}"
        self.client = SignalClient(
            self.target, settings.client.token_file, deadline_ms=LONG_MS, read_deadline_ms=LONG_MS
        )
        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        self.channel = grpc.insecure_channel(self.target, options)
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.registry = registry_service_pb2_grpc.RegistryServiceStub(self.channel)

    async def _run(self, settings: Settings) -> None:
        try:
            async with running_server(settings) as self.parts:
                self._started.set()
                await self._stop.wait()
        finally:
            self._started.set()

    def call(self, work: Callable[[], Any]) -> Any:
        """Run something in the server's loop and give its answer."""

        async def run() -> Any:
            return work()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    def call_async(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in the server's loop and give its answer."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def until(self, holds: Callable[[Any], bool]) -> Any:
        """The first serving status that has a property; each one comes from the status stream."""
        for status in self.client.watch_status(deadline_ms=LONG_MS):
            if holds(status):
                return status
        raise AssertionError("the status stream ended")

    def serving(self, symbol: str) -> str:
        """The model_id that is served for a symbol now, empty for none."""
        return served(self.client.status(), symbol)

    def begin_stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)

    def close(self) -> None:
        self.begin_stop()
        self._life.result()
        self.client.close()
        self.channel.close()


def served(status: Any, symbol: str) -> str:
    """The model_id of a symbol in a status, empty for none."""
    return next((item.model_id for item in status.models if item.symbol == symbol), "")


@pytest.fixture
def serve(loop: asyncio.AbstractEventLoop) -> Iterator[Callable[..., Server]]:
    """Start a server in this process: `serve(base, server={...}, ml={...})`; ready unless `ready=False`."""
    running: list[Server] = []

    def start(base: Path, *, ready: bool = True, **sections: dict[str, Any]) -> Server:
        server = Server(settings_of(base, **sections), loop)
        running.append(server)
        if ready:
            server.until(lambda status: status.ready)
        return server

    yield start
    for server in running:
        server.close()


@pytest.fixture
def server(serve: Callable[..., Server], registry: Registry) -> Server:
    """A ready server of the registry."""
    return serve(registry.base)


class ServerProcess:
    """`signalserve serve` in a process of its own, with JSON logs in a file."""

    def __init__(self, base: Path, folder: Path, *arguments: str, **sections: dict[str, Any]) -> None:
        values = {"server": {"poll_ms": 20}, "logging": {"format": "json"}} | sections
        config = folder / "system.yml"
        config.write_text(yaml.safe_dump(values))
        self.log = folder / "server.log"
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    *("-m", "signalserve.cli.main", "serve", "--config", str(config)),
                    *("--port", "0", "--registry", str(base), *arguments),
                ],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("ready on 127.0.0.1:"), (line, self.log.read_text())
        self.port = int(line.rpartition(":")[2])
        self.target = f"127.0.0.1:{self.port}"

    def terminate(self) -> int:
        """SIGTERM; gives the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=100)

    def close(self) -> None:
        if self.process.poll() is None:
            self.terminate()
        if self.process.stdout is not None:
            self.process.stdout.close()


@pytest.fixture
def serve_process(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Start `signalserve serve` in its own process and wait until it is ready."""
    running: list[ServerProcess] = []

    def start(base: Path, *arguments: str, **sections: dict[str, Any]) -> ServerProcess:
        running.append(ServerProcess(base, tmp_path, *arguments, **sections))
        return running[-1]

    yield start
    for process in running:
        process.close()


def request(values: Any, **fields: Any) -> prediction_pb2.PredictRequest:
    """A request for BTCUSDT/15m with the model's names, unless the fields say otherwise."""
    given = {"symbol": "BTCUSDT", "timeframe": "15m"} | fields
    if "feature_names" not in given and "schema_hash" not in given:
        given["feature_names"] = NAMES
    return prediction_pb2.PredictRequest(values=np.ravel(values), **given)


def refusal(call: Callable[..., Any], message: Any, timeout: float = 60.0) -> SignalServeError:
    """The typed error that a call is refused with."""
    with pytest.raises(grpc.RpcError) as caught:
        call(message, timeout=timeout)
    return from_rpc_error(caught.value)
