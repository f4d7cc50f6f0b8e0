"""The snapshot file: what the engine does right now, for whoever reads it.

Replaced at each bar by one rename, so a reader at any moment finds a whole JSON document, this bar's or the
last one's. It is not forced onto the disk: after a power cut the next bar writes it anew. A number that JSON does
not have, NaN or an infinity, is null.

One engine at a time keeps a file: a lock beside it, `.{name}.lock`, is held for the run. The system lets go of a dead
engine's, so that nothing needs to be cleaned up.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from signalserve.common.files import write_atomically
from signalserve.common.log import LibraryLog
from signalserve.live.records import BarRecord, LiveCounts
from signalserve.live.scoring import LinkReport
from signalserve.trading.rules import THRESHOLDS, TradingRules

FORMAT = 1

_log = LibraryLog("live")


class SnapshotInUseError(Exception):
    """Another engine that runs keeps the snapshot file; the text names it."""


@dataclass(frozen=True, slots=True)
class SignalEntry:
    """One signal of the log: given at the close of the bar that opened at `bar_time`.

    A regressor has a `value`, the expected return as a share, and no probability.
    """

    bar_time: datetime
    signal: str
    probability: float | None
    model_id: str
    close: float
    value: float | None = None


@dataclass(frozen=True)
class LiveSnapshot:
    """The engine after a bar; `position` is `long`, `short` or `flat`, `rules` what it trades by.

    `feature_set`: what it computes now. `signals` and `recent` are the newest of the signal log and of the bars'
    records, oldest first. `state`: `running`, or `stopped` in the last snapshot of a run.
    """

    symbol: str
    timeframe: str
    state: str
    started: datetime
    updated: datetime
    pinned_model_id: str | None
    used_model_id: str | None
    revision: int | None
    last_bar: datetime | None
    last_probability: float | None
    position: str
    equity: float
    starting_equity: float
    rules: TradingRules
    feature_set: str
    latency_p50_ms: float | None
    latency_p99_ms: float | None
    link: LinkReport
    counts: LiveCounts
    signals: tuple[SignalEntry, ...]
    recent: tuple[BarRecord, ...]
    last_value: float | None = None

    def to_json(self) -> str:
        """Write it as one JSON object; times in ISO 8601, UTC."""
        values: dict[str, Any] = {"format": FORMAT, **_fields(self)}
        values["rules"] = self.rules.used_for(THRESHOLDS)  # in numbers, also what stands for the costs
        link = values.pop("link")
        values |= {
            "server": link.state,
            "server_error": link.error,
            "last_error": link.last_error,
            "last_error_time": link.last_error_time,
            "unanswered": link.outstanding,
        }
        try:
            return json.dumps(values, default=_plain, allow_nan=False, ensure_ascii=False)
        except ValueError:  # rare, and only then worth the walk through all records
            whole = json.loads(json.dumps(values, default=_plain, ensure_ascii=False))
            return json.dumps(_finite(whole), allow_nan=False, ensure_ascii=False)


class SnapshotFile:
    """`{folder}/{symbol}_{timeframe}.json`.

    Raises:
        ValueError: symbol and timeframe make no file name.
        OSError: the folder can't be made.
    """

    def __init__(self, folder: Path | str, symbol: str, timeframe: str) -> None:
        name = f"{symbol}_{timeframe}.json"
        if not symbol or not timeframe or Path(name).name != name or "\\" in name or not name.isprintable():
            raise ValueError(f"symbol {symbol!r} and timeframe {timeframe!r} make no file name")
        self.path = Path(folder) / name
        self.path.parent.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the file to this engine.

        Where no lock can be made, as in a folder that can't be written, the engine runs without one and says so.

        Raises:
            SnapshotInUseError: another engine keeps it.
        """
        lock = FileLock(self.path.with_name(f".{self.path.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise SnapshotInUseError(
                f"another live engine keeps {self.path.resolve()}: stop it, or give this one a folder of its own"
                " (--snapshot-dir, live.snapshot_dir)"
            ) from None
        except (OSError, NotImplementedError) as error:
            _log.warning("live.snapshot_unlocked", path=str(self.path.resolve()), error=str(error))
        try:
            yield
        finally:
            lock.release()

    def write(self, snapshot: LiveSnapshot) -> None:
        """Replace the file; OSError where that fails, and the old one stays."""
        write_atomically(self.path, (snapshot.to_json() + "\n").encode(), durable=False)


def _fields(value: Any) -> dict[str, Any]:
    # asdict would copy every record of `recent` in depth, at each bar
    return {item.name: getattr(value, item.name) for item in fields(value)}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain(value: object) -> str | dict[str, Any]:
    if isinstance(value, datetime):
        return value.isoformat()
    return _fields(value)
