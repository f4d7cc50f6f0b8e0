"""The server of a soak, with its workers: their statuses, metrics, log lines, memory and threads."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from signalserve.client import ServingStatus, SignalClient, SignalServeError

ROOT = Path(__file__).resolve().parents[2]
WORKERS = 2
LOAD_SECONDS = 2.0
KEEPALIVE_SECONDS = 5.0
_HUNT = 12
_STOP_SECONDS = 60.0


@dataclass
class Life:
    """What one worker process had of memory (MB) and threads, sample by sample, with the second of each."""

    worker: int
    seconds: list[float] = field(default_factory=list)
    resident_mb: list[float] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)


class Fleet:
    """A running server of two workers on one port."""

    def __init__(self, process: subprocess.Popen[str], target: str, log: Path) -> None:
        self.process = process
        self.target = target
        self._log = log
        self._read_to = 0
        self.events: list[dict[str, Any]] = []
        self._clients: dict[int, SignalClient] = {}
        self._began = time.monotonic()
        self.lives: dict[int, Life] = {}
        self.statuses: dict[int, ServingStatus] = {}

    def look(self) -> dict[int, ServingStatus]:
        """The status of each worker that answers now, by its process id."""
        found: dict[int, ServingStatus] = {}
        for process_id, client in list(self._clients.items()):
            status = _status(client)
            if status is None or status.process_id != process_id:
                self._clients.pop(process_id).close()
            else:
                found[process_id] = status
        tries = 0
        while len(found) < WORKERS and tries < _HUNT:  # the kernel deals connections out as it likes
            tries += 1
            client = SignalClient(self.target, read_deadline_ms=1_000)
            status = _status(client)
            if status is None or status.process_id in found:
                client.close()
                continue
            found[status.process_id] = status
            self._clients[status.process_id] = client
        self.statuses = found
        return found

    def both(self) -> list[ServingStatus]:
        """Both workers' statuses; none where not both are met."""
        found = list(self.look().values())
        return found if len(found) == WORKERS else []

    def all_serve(self, model_id: str) -> bool:
        """Whether each worker of the last look serves a model."""
        return all(
            any(model.model_id == model_id for model in status.models) for status in self.statuses.values()
        )

    def pid_of(self, worker: int) -> int:
        """The process of a worker by its number, as of the last look; 0 where it was not met."""
        return next((pid for pid, status in self.statuses.items() if status.worker == worker), 0)

    def said(self, event: str, **fields: Any) -> bool:
        """Whether the log has such a line."""
        with self._log.open("rb") as log:
            log.seek(self._read_to)
            new = log.read()
        whole, _, _ = new.rpartition(b"\n")
        self._read_to += len(whole)
        for line in whole.splitlines():
            with suppress(ValueError):
                self.events.append(json.loads(line))
        return any(
            line.get("event") == event and all(line.get(name) == value for name, value in fields.items())
            for line in self.events
        )

    def open_streams(self) -> int:
        """Streams that the workers have open, as their metrics say; -1 where they can't be asked."""
        self.said("")
        addresses = {
            line["worker"]: line["address"]
            for line in self.events
            if line.get("event") == "metrics.listening"
        }
        total = 0
        for status in self.statuses.values():
            try:
                with urllib.request.urlopen(addresses[status.worker], timeout=5) as answer:  # noqa: S310 - ours
                    text = answer.read().decode()
            except (OSError, KeyError):
                return -1
            match = re.search(r"^signalserve_open_streams ([\d.e+]+)$", text, re.MULTILINE)
            total += int(float(match[1])) if match else 0
        return total

    def sample(self) -> None:
        """Note memory and threads of each worker."""
        for process_id, status in self.statuses.items():
            with suppress(psutil.Error):
                process = psutil.Process(process_id)
                life = self.lives.setdefault(process_id, Life(status.worker))
                life.resident_mb.append(process.memory_info().rss / 2**20)
                life.threads.append(process.num_threads())
                life.seconds.append(time.monotonic() - self._began)

    def stop(self) -> list[str]:
        """SIGTERM; gives what did not hold: the exit code, and processes that stayed."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()
        with suppress(psutil.Error):
            family = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return [f"the server did not end within {_STOP_SECONDS:.0f} s of SIGTERM"]
        found = [] if code == 0 else [f"the server ended with {code}"]
        _, alive = psutil.wait_procs(family, timeout=5)
        for orphan in alive:
            found.append(f"process {orphan.pid} outlived the server")
            orphan.kill()
        return found


@contextmanager
def serving(base: Path, work: Path) -> Iterator[Fleet]:
    """A server of two workers over a registry, for the length of the block; it must be stopped by then."""
    config = work / "system.yml"
    sections = {
        "server": {
            "load_seconds": LOAD_SECONDS,
            "keepalive_seconds": KEEPALIVE_SECONDS,
            "metrics_port": 0,
        },
        "promotion": {"gate": "none"},
        "logging": {"format": "json"},
    }
    config.write_text(yaml.safe_dump(sections))
    log = work / "server.log"
    with log.open("a") as stream:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "signalserve.cli.main", "serve", "--config", str(config)),
                *("--port", "0", "--workers", str(WORKERS), "--registry", str(base)),
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=stream,
            text=True,
        )
    try:
        line = process.stdout.readline() if process.stdout else ""
        if not line.startswith("ready on "):
            raise RuntimeError(f"the server did not start: {log.read_text()[-2000:]}")
        yield Fleet(process, line.removeprefix("ready on ").strip(), log)
    finally:
        if process.poll() is None:
            with suppress(psutil.Error):
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.kill()
            process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def strike(process_id: int, number: signal.Signals) -> None:
    """Send a worker a signal."""
    os.kill(process_id, number)


def _status(client: SignalClient) -> ServingStatus | None:
    try:
        return client.status()
    except SignalServeError:
        return None
