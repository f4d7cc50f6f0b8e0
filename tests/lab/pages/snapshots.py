"""Snapshots as live engines leave them, for tests that are about what is shown of them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from signalserve.common.files import write_atomically


def write_snapshot(
    folder: Path, name: str, before: str, after: str, *, bars: int = 60, stale: bool = False
) -> None:
    """One engine's snapshot: a model that became another in the middle, a position held for a while."""
    symbol, _, timeframe = name.rpartition("_")
    now = datetime.now(UTC)
    last = now.replace(minute=now.minute // 15 * 15, second=0, microsecond=0)
    if stale:
        now -= timedelta(days=2)
    recent = []
    for place in range(bars):
        held = 20 <= place < 40
        recent.append(
            {
                "bar_time": (last - (bars - 1 - place) * timedelta(minutes=15)).isoformat(),
                "close": 100.0 + place / 10,
                "probability": 0.42 + 0.2 * held + 0.001 * place,
                "signal": "LONG" if place == 20 else "CLOSE" if place == 40 else "",
                "model_id": before if place < bars // 2 else after,
                "latency_ms": 1.25,
                "late": False,
                "position": "long" if held else "flat",
                "equity": 10_000.0 + place,
                "note": "",
            }
        )
    folder.mkdir(parents=True, exist_ok=True)
    value = {
        "format": 1, "symbol": symbol, "timeframe": timeframe, "state": "running",
        "started": (now - timedelta(hours=20)).isoformat(), "updated": now.isoformat(),
        "pinned_model_id": None, "used_model_id": after, "revision": 3, "last_bar": last.isoformat(),
        "last_probability": recent[-1]["probability"], "position": "flat", "equity": recent[-1]["equity"],
        "starting_equity": 10_000.0, "latency_p50_ms": 1.2, "latency_p99_ms": 3.4,
        "counts": {"bars": bars, "answers": bars, "errors": 0}, "signals": [], "recent": recent,
        "server": "connected", "server_error": "", "unanswered": 0,
    }  # fmt: skip
    write_atomically(folder / f"{name}.json", json.dumps(value).encode())
