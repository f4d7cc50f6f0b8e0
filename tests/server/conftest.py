from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    ExitStack,
    asynccontextmanager,
    contextmanager,
)
from pathlib import Path
from typing import Any

import pytest

from signalserve.client import AsyncSignalClient
from signalserve.config.settings import Settings
from signalserve.registry import Promotion
from signalserve.server.bootstrap import RunningServer, running_server
from tests.registries import registry_at
from tests.small_models import register_copy, sealed_template

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four sealed models, each following another column."""
    folder = tmp_path_factory.mktemp("templates")
    return [sealed_template(folder / f"t{column}", column=column) for column in range(4)]


@pytest.fixture
def base(tmp_path: Path, templates: list[Path]) -> Path:
    """BTCUSDT/15m: btc0 in production, btc1 registered; ETHUSDT/15m: eth2 registered."""
    base = tmp_path / "registry"
    register_copy(templates[0], base, "btc0")
    register_copy(templates[1], base, "btc1")
    register_copy(templates[2], base, "eth2", symbol="ETHUSDT")
    registry_at(base).promote([Promotion("btc0")])
    return base


def settings_of(base: Path, **sections: dict[str, Any]) -> Settings:
    """Settings for a server on a free port; `server={"max_rows": 5}` and the like change a section."""
    values: dict[str, Any] = {
        "ml": {"models_dir": base},
        "server": {"port": 0, "poll_ms": 20, "drain_seconds": 3600.0},
    }
    for section, changes in sections.items():
        values[section] = values.get(section, {}) | changes
    return Settings(**values)


@asynccontextmanager
async def serving(
    base: Path, *, ready: bool = True, **sections: dict[str, Any]
) -> AsyncIterator[tuple[AsyncSignalClient, RunningServer]]:
    """A real server on a real port and a client of it."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(running_server(settings_of(base, **sections)))
        client = await stack.enter_async_context(
            AsyncSignalClient(f"127.0.0.1:{server.port}", deadline_ms=20_000, read_deadline_ms=20_000)
        )
        while ready and not server.state.snapshot.complete:
            await server.watcher.wait_for_change(server.watcher.version)
        yield client, server


Serving = Callable[..., AbstractAsyncContextManager[tuple[AsyncSignalClient, RunningServer]]]


@contextmanager
def server_process(
    base: Path, log: Path, *arguments: str, environment: dict[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`signalserve serve` in a process of its own; gives it and its address once it is ready."""
    command = [
        sys.executable,
        "-m",
        "signalserve.cli.main",
        "serve",
        "--port",
        "0",
        "--registry",
        str(base),
        *arguments,
    ]
    with ExitStack() as stack:
        stream = stack.enter_context(log.open("w"))
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stream, text=True, cwd=ROOT, env=environment
        )
        stack.callback(process.wait)
        stack.callback(process.kill)
        assert process.stdout is not None
        stack.callback(process.stdout.close)
        line = process.stdout.readline()
        assert line.startswith("ready on "), log.read_text()
        yield process, line.removeprefix("ready on ").strip()
