"""What it costs to be asked who one is: one row, unary, with and without tokens, turn about against one another."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from statistics import median

from rich.console import Console

from benchmarks.setting import (
    NAMES,
    ServerProcess,
    registry_of,
    sealed_template,
    server_process,
    training_data,
)
from signalserve.access.token_file import TokenFile
from signalserve.client import AsyncSignalClient

TARGET = 1.25
_ROUNDS, _CALLS, _IN_FLIGHT = 5, 4_000, 16

console = Console(highlight=False)


async def cpu_of(server: ServerProcess, token: str | None) -> float:
    """Microseconds of the server's CPU a call."""
    row = training_data(1)[0][0]
    async with AsyncSignalClient(server.target, token, deadline_ms=20_000) as client:

        async def ask(calls: int) -> None:
            for _ in range(calls):
                await client.predict("S", "15m", row, feature_names=NAMES)

        await ask(100)
        before = server.cpu_seconds()
        await asyncio.gather(*(ask(_CALLS // _IN_FLIGHT) for _ in range(_IN_FLIGHT)))
        return (server.cpu_seconds() - before) / _CALLS * 1e6


def run() -> None:
    """Measure both and print the ratio."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        registry_of(folder / "registry", sealed_template(folder / "template", "rf"), "rf", ["S"])
        _, token = TokenFile(folder / "tokens.json").create("engine", ["predict"])
        serve = ["signalserve.cli.main", "serve", "--port", "0", "--registry", str(folder / "registry")]
        asks = [*serve, "--token-file", str(folder / "tokens.json")]
        with server_process(serve) as open_server, server_process(asks) as asking:
            rounds = [
                (asyncio.run(cpu_of(open_server, None)), asyncio.run(cpu_of(asking, token)))
                for _ in range(_ROUNDS)
            ]
    without, with_tokens = (median(times) for times in zip(*rounds, strict=True))
    ratio = with_tokens / without
    mark = "[green]holds[/]" if ratio <= TARGET else "[red]MISSED[/]"
    console.print(
        f"{mark}  one row with a token against none, server CPU: {ratio:.2f} x, target at most {TARGET:g} x"
        f"  ({with_tokens:.0f} us against {without:.0f} us)",
        soft_wrap=True,
    )
