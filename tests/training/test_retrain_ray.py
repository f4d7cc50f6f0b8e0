"""A retrain on a Ray cluster of two nodes, one of which is killed while it trains."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from signalserve.config.settings import Settings
from signalserve.features.synthetic import synthetic_bars
from signalserve.registry import init_registry, load_registry, verify_log
from signalserve.training.backends import BackendError, Inbox, Outcome
from signalserve.training.ray_backend import RayBackend
from signalserve.training.retrain import Retrain
from signalserve.training.retrain_job import JobStatus

pytest.importorskip("ray", reason="Ray is the extra `cluster`")
# Ray's own code leaves sockets and subprocesses to the collector
pytestmark = pytest.mark.filterwarnings("ignore")
SYMBOLS = ("AAA", "BBB", "CCC")
HELD = ("AAA", "BBB")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "bars").mkdir()
    init_registry(tmp_path / "models")
    for symbol in SYMBOLS:
        synthetic_bars(symbol, 1500, seed=3).to_csv(tmp_path / "bars" / f"{symbol}_15m.csv")
    sections: dict[str, Any] = {
        "data": {"ohlcv_path": f"{tmp_path}/bars/{{symbol}}_{{timeframe}}.csv"},
        "ml": {
            "models_dir": tmp_path / "models",
            "model_type": "logreg",
            "label": {"up_threshold": 0.001, "down_threshold": -0.001},
            "walk_forward": {"folds": 2},
        },
        "backtest": {"output_dir": tmp_path / "backtests"},
        "logging": {"level": "warning"},
        "retrain": {
            "backend": "ray",
            "output_dir": tmp_path / "retrain",
            "policies": [{"name": "weekly", "symbols": list(SYMBOLS)}],
        },
    }
    return Settings(**sections)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 100 * 1024 * 1024, "include_dashboard": False}
    cluster = Cluster()
    try:
        started(cluster, **node)
        yield cluster
    finally:
        cluster.shutdown()


def started(cluster: Any, **options: Any) -> Any:
    """A node of the cluster; Ray's own start of one fails now and then."""
    for left in reversed(range(3)):
        try:
            return cluster.add_node(**options)
        except Exception:  # it raises no class of its own
            if not left:
                raise
    return None


def held_bars(folder: Path, symbol: str) -> Path:
    """A bar file that is a pipe until `release`: a job that reads it is in mid-run. Gives the real file."""
    path, real = folder / f"{symbol}_15m.csv", folder / f"{symbol}.real"
    shutil.move(path, real)
    os.mkfifo(path)
    return real


@pytest.mark.timeout(900)  # Ray starts a dozen processes, which takes minutes on a machine that is busy
def test_a_node_that_is_killed_in_mid_run_loses_nothing_and_nothing_is_done_twice(
    settings: Settings, cluster: Any, tmp_path: Path
) -> None:
    second = started(cluster, num_cpus=1, object_store_memory=100 * 1024 * 1024)
    bars, output, models = tmp_path / "bars", tmp_path / "retrain", tmp_path / "models"
    files = {symbol: held_bars(bars, symbol) for symbol in HELD}
    killed: list[str] = []

    def kill_the_second_node_in_mid_run() -> None:
        # one CPU a node: each trains one of the held symbols once both pipes are open
        pipes = {symbol: os.open(bars / f"{symbol}_15m.csv", os.O_WRONLY) for symbol in HELD}
        markers = [json.loads(path.read_text()) for path in (output / "running").glob("*.json")]
        pids = {marker["key"].removesuffix("/15m"): marker["pid"] for marker in markers}
        content = {symbol: real.read_bytes() for symbol, real in files.items()}
        for symbol, real in files.items():
            real.replace(bars / f"{symbol}_15m.csv")
        raylet = second.all_processes["raylet"][0].process.pid
        lost = [
            symbol
            for symbol, pid in pids.items()
            if raylet in [parent.pid for parent in psutil.Process(pid).parents()]
        ]
        workers = [psutil.Process(pids[symbol]) for symbol in lost]
        cluster.remove_node(second, allow_graceful=False)
        psutil.wait_procs(workers, timeout=30)
        killed.extend(lost)
        for symbol, pipe in pipes.items():
            if symbol not in lost:
                with open(pipe, "wb", closefd=False) as stream:
                    stream.write(content[symbol])
            os.close(pipe)

    retrain = settings.retrain.model_copy(update={"ray_address": cluster.address})
    settings = settings.model_copy(update={"retrain": retrain})
    watcher = threading.Thread(target=kill_the_second_node_in_mid_run, daemon=True)
    watcher.start()
    results = Retrain(settings, retrain.policies, Inbox()).once()
    watcher.join()

    assert len(killed) == 1, "one of the two held jobs was on the node that went"
    assert {result.symbol for result in results} == set(SYMBOLS)
    assert {result.status for result in results} <= {JobStatus.CANDIDATE, JobStatus.TRAINED}, results
    entries = load_registry(models)
    assert sorted(entry.symbol for entry in entries) == sorted(SYMBOLS)
    assert {entry.model_id for entry in entries} == {result.model_id for result in results}
    actions = [json.loads(line)["action"] for line in (models / "registry_events.jsonl").open()]
    assert (actions.count("register"), actions.count("evaluate")) == (len(SYMBOLS), len(SYMBOLS))
    assert verify_log(models).ok
    folders = {path.name for path in models.iterdir() if path.is_dir()}
    assert folders == {entry.model_id for entry in entries}, "what the dead worker had begun is gone"
    assert list((output / "running").iterdir()) == []
    lines = (output / "runs.jsonl").read_text(encoding="utf-8").splitlines()
    assert sorted(json.loads(line)["symbol"] for line in lines) == sorted(SYMBOLS)


@pytest.mark.timeout(600)
def test_a_ray_of_its_own_is_started_for_the_run_and_gone_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    left_behind: list[psutil.Popen] = []

    def fails_once(**options: Any) -> Any:
        if left_behind:
            return start(**options)
        left_behind.append(psutil.Popen([sys.executable, "-c", "import time; time.sleep(600)"]))
        raise Exception("The current node timed out during startup.")  # noqa: TRY002 - as Ray does

    start = ray.init
    monkeypatch.setattr(ray, "init", fails_once)
    before = signal.getsignal(signal.SIGTERM)
    outcomes = dict(RayBackend(2, None).run(["1 + 1", "1 / 0"], eval, Inbox()))
    assert outcomes == {"1 + 1": Outcome(2), "1 / 0": Outcome(error="ZeroDivisionError: division by zero")}
    assert not ray.is_initialized()
    assert not left_behind[0].is_running(), "what a start that failed has left is cleared away"
    assert signal.getsignal(signal.SIGTERM) == before
    names = [child.name() for child in psutil.Process().children(recursive=True)]
    assert not [name for name in names if "ray" in name.lower() or "gcs" in name.lower()], names


def test_a_ray_that_does_not_start_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    tries: list[str] = []

    def fails(**options: Any) -> Any:
        tries.append(options["address"])
        raise Exception("The current node timed out during startup.")  # noqa: TRY002 - as Ray does

    monkeypatch.setattr(ray, "init", fails)
    with pytest.raises(BackendError, match="no Ray on this machine: The current node timed out"):
        list(RayBackend(2, None).run(["1 + 1"], eval, Inbox()))
    with pytest.raises(BackendError, match=r"no Ray at 127\.0\.0\.1:1 \(retrain\.ray_address\)"):
        list(RayBackend(2, "127.0.0.1:1").run(["1 + 1"], eval, Inbox()))
    assert tries == ["local"] * 3 + ["127.0.0.1:1"], "a cluster that is away is not tried for minutes"
