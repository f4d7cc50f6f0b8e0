"""Where the demo works, and its server: nothing that it does reaches the configured registry."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from signalserve.config.settings import Settings

_READY_SECONDS = 120.0


class ServerDidNotStartError(Exception):
    """The server ended, or was not ready in time; the text says where its log is."""


def own_settings(settings: Settings, folder: Path, ohlcv: Path | None = None) -> Settings:
    """The settings with a registry and outputs below `folder`, and without pins, whose models are not there.

    Bars are those of the file that was given, else the ones that the demo makes up in `folder`.
    """
    bars = f"{folder}/{{symbol}}_{{timeframe}}.csv"
    if ohlcv is not None:
        bars = str(ohlcv.resolve()).replace("{", "{{").replace("}", "}}")
    own = {
        "data": {"ohlcv_path": bars},
        "ml": {"models_dir": folder / "ml_models", "production_model": "auto", "pins": {}},
        "backtest": {"output_dir": folder / "backtests"},
        "retrain": {"output_dir": folder / "retrain"},
        "live": {"snapshot_dir": folder / "live"},
    }
    return settings.model_copy(
        update={name: getattr(settings, name).model_copy(update=values) for name, values in own.items()}
    )


def write_config(settings: Settings, path: Path) -> None:
    """Write the settings as a configuration file, for the server and for whoever looks on afterwards."""
    text = yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    path.write_text(f"# written by `signalserve demo`: what it ran by\n{text}", encoding="utf-8")


@contextmanager
def demo_server(settings: Settings, config: Path, log: Path) -> Iterator[str]:
    """The real server in a process of its own, on a free port, for the length of the block; gives its address."""
    command = [sys.executable, "-m", "signalserve.cli.main", "serve", "--port", "0", "--config", str(config)]
    # what the environment changes is in the file already, and must not change it again
    environment = {
        name: value for name, value in os.environ.items() if not name.upper().startswith("SIGNALSERVE__")
    }
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(  # noqa: S603 - ours
            command, stdout=subprocess.PIPE, stderr=stream, text=True, env=environment
        )
        # a server that hangs must not hang the demo
        watchdog = threading.Timer(_READY_SECONDS, process.kill)
        watchdog.start()
        try:
            line = process.stdout.readline() if process.stdout is not None else ""
            watchdog.cancel()
            if not line.startswith("ready on "):
                process.wait()
                raise ServerDidNotStartError(f"the server did not start; {log} says why")
            yield line.removeprefix("ready on ").strip()
        finally:
            watchdog.cancel()
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=settings.server.drain_seconds + 30)
