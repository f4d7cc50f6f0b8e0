"""Twenty symbols retrained with two worker processes against one, start-up of the workers included.

Each is run twice, turn about, and the better time counts: on a shared machine a neighbour only ever adds to it.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

from rich.console import Console

from signalserve.config.logs import configure_logs
from signalserve.config.settings import LoggingSettings, Settings
from signalserve.features.synthetic import synthetic_bars
from signalserve.registry import init_registry, list_models
from signalserve.training.backends import Inbox
from signalserve.training.retrain import Retrain
from signalserve.training.retrain_job import JobStatus

TARGET = 1.7

console = Console(highlight=False)


def write_bars(folder: Path, symbols: int, bars: int) -> None:
    """One file of synthetic bars a symbol."""
    for number in range(symbols):
        synthetic_bars(f"S{number:02}", bars, seed=number).to_csv(folder / f"S{number:02}_15m.csv")


def settings_of(folder: Path, processes: int) -> Settings:
    """A policy over every file, in a registry of its own."""
    out = folder / f"processes_{processes}"
    return Settings(
        data={"ohlcv_path": f"{folder}/{{symbol}}_{{timeframe}}.csv"},  # type: ignore[arg-type]
        ml={  # type: ignore[arg-type]
            "models_dir": out / "models",
            "model_type": "rf",
            "models": {"rf": {"n_estimators": 120, "max_depth": 6, "min_samples_leaf": 50}},
        },
        backtest={"output_dir": out / "backtests"},  # type: ignore[arg-type]
        logging={"level": "warning"},  # type: ignore[arg-type]
        retrain={  # type: ignore[arg-type]
            "processes": processes,
            "output_dir": out / "retrain",
            "policies": [{"name": "all", "symbols": ["S*"]}],
        },
    )


def seconds_of(folder: Path, processes: int, symbols: int) -> float:
    """Wall time of a retrain of every symbol."""
    settings = settings_of(folder, processes)
    shutil.rmtree(settings.ml.models_dir.parent, ignore_errors=True)
    init_registry(settings.ml.models_dir)
    began = time.perf_counter()
    results = Retrain(settings, settings.retrain.policies, Inbox()).once()
    seconds = time.perf_counter() - began
    failed = [result for result in results if result.status == JobStatus.FAILED]
    assert not failed, failed
    assert len(list_models(settings.ml.models_dir)) == symbols
    return seconds


def run(symbols: int, bars: int) -> None:
    """Measure both and print the ratio."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_bars(folder, symbols, bars)
        rounds = [[seconds_of(folder, processes, symbols) for processes in (1, 2)] for _ in range(2)]
    one, two = (min(times) for times in zip(*rounds, strict=True))
    mark = "[green]holds[/]" if one / two >= TARGET else "[red]MISSED[/]"
    console.print(
        f"{mark}  retrain of {symbols} symbols, two processes against one: {one / two:.2f} x, target at least"
        f" {TARGET:g} x  ({two:.1f} s against {one:.1f} s)",
        soft_wrap=True,
    )


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--symbols", type=int, default=20)
    parser.add_argument("--bars", type=int, default=3000, help="bars a symbol")
    options = parser.parse_args()
    configure_logs(LoggingSettings(level="warning"))
    run(options.symbols, options.bars)


if __name__ == "__main__":
    main()
