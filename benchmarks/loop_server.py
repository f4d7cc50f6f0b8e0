"""A server that says how long its event loop was held up: one line on stdout for each line on stdin."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from signalserve.config.logs import configure_logs
from signalserve.config.settings import LoggingSettings, Settings
from signalserve.server.bootstrap import running_server
from signalserve.server.event_loop import run_loop, settle

_TICK_SECONDS = 0.001  # uvloop's timers count in whole milliseconds


class Ticker:
    """Notices how much later than asked for the loop wakes it up."""

    def __init__(self) -> None:
        self._largest = 0.0

    async def run(self) -> None:
        """Tick until it is cancelled."""
        while True:
            began = time.perf_counter()
            await asyncio.sleep(_TICK_SECONDS)
            self._largest = max(self._largest, time.perf_counter() - began - _TICK_SECONDS)

    def tell(self) -> None:
        """Print the largest delay in milliseconds since the last time, when asked to."""
        sys.stdin.readline()
        print(f"{self._largest * 1e3:.3f}", flush=True)
        self._largest = 0.0


async def main(base: Path) -> None:
    """Serve a registry until the process is ended."""
    settings = Settings(ml={"models_dir": base}, server={"port": 0})  # type: ignore[arg-type]  # pydantic makes sections of them
    async with running_server(settings, on_loaded=settle) as server:
        await server.wait_until(lambda snapshot: snapshot.complete)
        ticker = Ticker()
        asyncio.get_running_loop().add_reader(sys.stdin, ticker.tell)
        print(f"ready on 127.0.0.1:{server.port}", flush=True)
        await ticker.run()


if __name__ == "__main__":
    configure_logs(LoggingSettings(level="warning"))
    run_loop(main(Path(sys.argv[1])))
