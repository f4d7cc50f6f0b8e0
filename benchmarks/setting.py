"""What the benchmarks measure on: models, a registry of many keys, servers in processes of their own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np
import psutil
import xgboost
from sklearn.ensemble import RandomForestClassifier

from signalserve.config import Settings
from signalserve.judging import PromoteGate
from signalserve.registry import ModelMetadata, Promotion, open_registry, register_model
from signalserve.registry.sealing import seal

FEATURES = 40
NAMES = [f"feature_{number}" for number in range(FEATURES)]


def training_data(rows: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """X [rows, 40] and classes, seeded."""
    random = np.random.default_rng(0)
    X = random.normal(size=(rows, FEATURES))
    return X, (X[:, :5].sum(axis=1) + random.normal(size=rows) > 0).astype(int)


def sealed_template(folder: Path, kind: str) -> Path:
    """A sealed run directory of the forest or the xgboost model that DESIGN's figures are about."""
    X, y = training_data()
    model = (
        RandomForestClassifier(200, max_depth=6, random_state=0, n_jobs=2).fit(X, y)
        if kind == "rf"
        else xgboost.XGBClassifier(n_estimators=300, max_depth=6, n_jobs=2).fit(X, y)
    )
    folder.mkdir(parents=True)
    joblib.dump(model, folder / "model.joblib")
    meta = ModelMetadata(folder.name, "TEMPLATE", "15m", kind, feature_cols=NAMES)
    meta.write(folder / "meta.json")
    seal(folder, meta, model, X)
    return folder


def register_copy(template: Path, base: Path, symbol: str, number: int, kind: str) -> str:
    """Register a copy of a sealed folder as a model of its own."""
    model_id = f"{symbol}_15m_{kind}_{number}"
    shutil.copytree(template, base / model_id)
    values = json.loads((template / "meta.json").read_text())
    meta = ModelMetadata.from_dict(values | {"model_id": model_id, "symbol": symbol, "model_type": kind})
    meta.write(base / model_id / "meta.json")
    register_model(meta, base, pins=())
    return model_id


def registry_of(base: Path, template: Path, kind: str, symbols: list[str]) -> list[str]:
    """A registry with one production model a symbol."""
    ids = [register_copy(template, base, symbol, 1, kind) for symbol in symbols]
    ungated = PromoteGate.of(Settings(promotion={"gate": "none"}))  # type: ignore[arg-type]
    registry = open_registry(base, gate=ungated)
    registry.promote([Promotion(model_id) for model_id in ids], reason="benchmark")
    return ids


@dataclass(frozen=True)
class ServerProcess:
    """A running server and what it costs."""

    target: str
    process: psutil.Process

    def cpu_seconds(self) -> float:
        """User and system time so far."""
        times = self.process.cpu_times()
        return float(times.user + times.system)

    def resident_mb(self) -> float:
        """Resident memory."""
        return float(self.process.memory_info().rss) / 2**20


@contextmanager
def server_process(arguments: list[str], ready: str = "ready on ") -> Iterator[ServerProcess]:
    """`python -m ARGUMENTS`, up to the block's end; its first line begins with `ready` and ends with its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        line = process.stdout.readline() if process.stdout else ""
        if not line.startswith(ready):
            raise RuntimeError(f"{arguments} did not start")
        yield ServerProcess(line.removeprefix(ready).strip(), psutil.Process(process.pid))
    finally:
        process.terminate()
        process.wait()


def signalserve_process(base: Path) -> list[str]:
    """The command of our server over a registry."""
    return ["signalserve.cli.main", "serve", "--port", "0", "--registry", str(base)]
