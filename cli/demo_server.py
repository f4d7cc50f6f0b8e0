"""Where the demo works, its server and its lab: nothing that it does reaches the configured registry."""

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

from signalserve.access.errors import AccessError
from signalserve.access.identity import Credential
from signalserve.access.token_file import TokenFile, read_tokens
from signalserve.common.files import write_atomically
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
        # its server asks who calls, and its own commands answer with the token of demo_token
        "security": {
            "token_file": folder / "tokens.json",
            "tls_cert": None,
            "tls_key": None,
            "tls_client_ca": None,
        },
        "client": {
            "token_file": folder / "ops.token",
            **dict.fromkeys(("tls_ca", "tls_cert", "tls_key", "tls_server_name")),
            "tls": False,
        },
        "lab": {"session_key": folder / "session.key", "host": "127.0.0.1", "workers": 1},
    }
    return settings.model_copy(
        update={name: getattr(settings, name).model_copy(update=values) for name, values in own.items()}
    )


def write_config(settings: Settings, path: Path) -> None:
    """Write the settings as a configuration file, for the server and for whoever looks on afterwards."""
    text = yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    path.write_text(f"# written by `signalserve demo`: what it ran by\n{text}", encoding="utf-8")


def make_token(settings: Settings) -> None:
    """Make the demo's ops token, unless the one of an earlier run still holds."""
    known, held = settings.security.token_file, settings.client.token_file
    if known is None or held is None:
        return
    try:
        read_tokens(known).identify(Credential(held.read_text(encoding="utf-8").strip()))
    except (AccessError, OSError):
        known.unlink(missing_ok=True)
        _, token = TokenFile(known).create("demo", ["ops"])
        write_atomically(held, f"{token}\n".encode(), private=True)


@contextmanager
def demo_server(settings: Settings, config: Path, log: Path) -> Iterator[str]:
    """The real server in a process of its own, on a free port, for the length of the block; gives its address."""
    seconds = settings.server.drain_seconds + 30
    with _process(["serve", "--port", "0", "--config", str(config)], "ready on ", log, seconds) as target:
        yield target


@contextmanager
def demo_lab(config: Path, target: str, log: Path) -> Iterator[str]:
    """ML Lab in a process of its own, on a free port, for the length of the block; gives its address."""
    command = ["lab", "--port", "0", "--target", target, "--config", str(config)]
    with _process(command, "ML Lab on ", log, 30.0) as address:
        yield address


@contextmanager
def _process(arguments: list[str], ready: str, log: Path, seconds_to_end: float) -> Iterator[str]:
    """A command of ours in a process; gives what follows `ready` on its first line."""
    command = [sys.executable, "-m", "signalserve.cli.main", *arguments]
    # what the environment changes is in the file already, and must not change it again
    environment = {
        name: value for name, value in os.environ.items() if not name.upper().startswith("SIGNALSERVE__")
    }
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(  # noqa: S603 - ours
            command, stdout=subprocess.PIPE, stderr=stream, text=True, env=environment
        )
        # one that hangs must not hang the demo
        watchdog = threading.Timer(_READY_SECONDS, process.kill)
        watchdog.start()
        try:
            line = process.stdout.readline() if process.stdout is not None else ""
            watchdog.cancel()
            if not line.startswith(ready):
                process.wait()
                raise ServerDidNotStartError(f"`signalserve {arguments[0]}` did not start; {log} says why")
            yield line.removeprefix(ready).strip()
        finally:
            watchdog.cancel()
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=seconds_to_end)
