"""A registry of any size, as years of retraining leave it: its log and its index, without the models' files.

1. Each model is registered, evaluated, promoted in the place of its key's last one, and removed by retention once it is
   among the oldest. A registry of as many events as entries is the exception: its models were registered, and no more.
2. The records are as large as real ones: an evaluation's line has 3.8 kB, and the promote's repeats what it read.
3. The chain is whole and every event names its index, so `signalserve registry verify-log` has nothing against it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.index_lines import IndexLines
from signalserve.common.files import sha256_hex
from signalserve.common.moments import second_text
from signalserve.config.evidence import PromotionSettings
from signalserve.judging import Evidence, Measured, Policy
from signalserve.judging.sharpe import ReturnMoments
from signalserve.registry import ModelRegistryEntry
from signalserve.registry.events import GENESIS, LOG_FILE, Action, Event, StatusChange, canonical
from signalserve.registry.index import INDEX_FILE

_BEGAN = datetime(2020, 1, 1, tzinfo=UTC)
_RULES = {
    "allow_short": False,
    "fee_bps": 5.0,
    "proba_entry": 0.55,
    "proba_exit": 0.45,
    "slippage_bps": 2.0,
    "warmup_bars": 0,
}
_VERDICTS = (
    "quarantined",
    "evidence",
    "fresh",
    "recent_bars",
    "artefact",
    "same_artefacts",
    "same_champion",
    "same_settings",
    "out_of_sample",
    "bars",
    "trades",
    "drawdown",
    "deflated_sharpe",
    "sharpe",
)


@dataclass(frozen=True)
class Scale:
    """How large a registry is: `events` in the log, of which `entries` models are left."""

    events: int
    entries: int

    @property
    def keys(self) -> int:
        """How many symbols share the entries."""
        return max(1, self.entries // 10)

    @property
    def models(self) -> int:
        """How many models were registered, the removed ones included."""
        return self.entries if self.is_fresh else (self.events + self.entries) // 4

    @property
    def is_fresh(self) -> bool:
        """Whether nothing happened but registrations."""
        return self.events == self.entries


class LongLog:
    """Writes one registry; the same scale gives the same one."""

    def __init__(self, scale: Scale) -> None:
        self.scale = scale
        self._random = np.random.default_rng(0)
        self._rows = IndexLines()
        self._entries: dict[int, ModelRegistryEntry] = {}
        self._removed = 0
        self._policy = Policy.of(PromotionSettings()).to_dict()
        self._records: dict[int, dict[str, Any]] = {}

    def write(self, base: Path) -> None:
        """Make the folder with its log and its index."""
        base.mkdir(parents=True)
        prev_hash = GENESIS
        with (base / LOG_FILE).open("wb") as log:
            for revision, event in enumerate(self._events(), 1):
                moment = _BEGAN + timedelta(minutes=revision)
                event = replace(
                    event,
                    revision=revision,
                    time=moment.isoformat(timespec="microseconds").replace("+00:00", "Z"),
                    index_sha256=self._rows.sha256(),
                    prev_hash=prev_hash,
                )
                body = event.body()  # once for hash and line: most of the time goes here
                prev_hash = sha256_hex(canonical(body))
                log.write(canonical(body | {"hash": prev_hash}) + b"\n")
        (base / INDEX_FILE).write_bytes(self._rows.content())

    def _events(self) -> Iterator[Event]:
        for number in range(self.scale.models):
            yield self._register(number)
            if self.scale.is_fresh:
                continue
            yield self._evaluate(number)
            yield self._promote(number)
            if number >= self.scale.entries:
                yield self._retire(number - self.scale.entries)

    def _register(self, number: int) -> Event:
        moment = _BEGAN + timedelta(hours=number)
        symbol = f"S{number % self.scale.keys:05}USDT"
        model_id = f"{symbol}_15m_rf_{moment:%Y%m%d_%H%M%S}"
        entry = ModelRegistryEntry(
            model_id,
            symbol,
            "15m",
            "rf",
            second_text(moment),
            f"outputs/ml_models/{model_id}",
            float(self._random.normal(0.1, 0.1)),
            float(self._random.normal(1.0, 1.0)),
        )
        self._put(number, entry)
        tested = [(moment - timedelta(days=days)).isoformat() for days in (12, 1)]
        detail = {"engine": "onnx", "engine_reason": "", "entries": [entry.to_row()], "tested": tested}
        return _event(Action.REGISTER, [self._change(number, None, entry.status)], detail=detail)

    def _evaluate(self, number: int) -> Event:
        entry, before = self._entries[number], self._champion(number)
        evidence = Evidence(
            self._measured(number),
            self._measured(before) if before is not None else None,
            entry.created_at,
            *[(_BEGAN + timedelta(hours=number, days=days)).isoformat() for days in (-11, 0)],
            bars=1071,
            bar_minutes=15.0,
            probability_better=float(self._random.uniform(0.9, 1.0)),
            mean_difference=float(self._random.normal(0.0, 1e-4)),
            block_bars=float(self._random.uniform(2.0, 4.0)),
            resamples=2000,
            seed=42,
            data={"configured": True, "file": f"{entry.symbol}_15m.csv", "sha256": self._digest(-1 - number)},
            rules=_RULES,
        )
        self._records[number] = {
            "challenger": entry.model_id,
            "champion": self._entries[before].model_id if before is not None else None,
            "evidence": evidence.to_dict(),
            "verdicts": [self._verdict(name) for name in _VERDICTS],
            "failed_verdicts": [],
            "overridden_verdicts": [],
            "evidence_verdicts": "in force",
            "policy": self._policy,
            "trading_rules": _RULES,
            "tries": 1,
        }
        change = self._move(number, "candidate")
        return _event(Action.EVALUATE, [change], self._records[number], {"key": list(entry.key)})

    def _promote(self, number: int) -> Event:
        before = self._champion(number)
        changes = [self._move(before, "archived")] if before is not None else []
        changes.append(self._move(number, "production"))
        entry = self._entries[number]
        result = {
            "symbol": entry.symbol,
            "timeframe": entry.timeframe,
            "model_id": entry.model_id,
            "previous_model_id": self._entries[before].model_id if before is not None else "",
        }
        return _event(
            Action.PROMOTE, changes, {"decisions": [self._records.pop(number)]}, {"result": [result]}
        )

    def _retire(self, number: int) -> Event:
        entry = self._entries[number]
        meta = {
            "model_id": entry.model_id,
            "symbol": entry.symbol,
            "timeframe": entry.timeframe,
            "model_type": entry.model_type,
            "feature_cols": [f"feature_{column}" for column in range(40)],
        }
        why = f"beyond the newest {self.scale.entries // self.scale.keys}"
        removed = {"entry": entry.to_row(), "meta": meta, "why": why}
        change = self._change(number, entry.status, None)
        del self._entries[number]
        self._rows.drop_first()
        self._removed += 1
        return _event(Action.RETENTION, [change], detail={"removed": [removed]})

    def _champion(self, number: int) -> int | None:
        before = number - self.scale.keys
        return before if before in self._entries else None

    def _move(self, number: int, status: str) -> StatusChange:
        entry = self._entries[number]
        self._put(number, entry.with_status(status))
        return self._change(number, entry.status, status)

    def _change(self, number: int, before: str | None, after: str | None) -> StatusChange:
        entry = self._entries[number]
        return StatusChange(
            entry.symbol, entry.timeframe, entry.model_id, before, after, self._digest(number)
        )

    def _put(self, number: int, entry: ModelRegistryEntry) -> None:
        self._entries[number] = entry
        self._rows.put(number - self._removed, entry.line)

    def _measured(self, number: int) -> Measured:
        train_end = (_BEGAN + timedelta(hours=number, days=-12)).isoformat()
        cum_return, sharpe, drawdown, skewness, kurtosis, auc = self._random.uniform(0.0, 1.0, 6).tolist()
        return Measured(
            self._entries[number].model_id,
            self._digest(number),
            train_end,
            cum_return,
            sharpe,
            drawdown,
            trades=55,
            horizon_bars=4,
            moments=ReturnMoments(1071, sharpe / 100, skewness, kurtosis),
            auc=auc,
        )

    def _verdict(self, name: str) -> dict[str, Any]:
        return {
            "verdict": name,
            "passed": True,
            "found": float(self._random.uniform(0.9, 1.0)),
            "bound": 0.9,
        }

    def _digest(self, number: int) -> str:
        return hashlib.sha256(f"{number}".encode()).hexdigest()


def _event(
    action: Action,
    changes: list[StatusChange],
    evidence: dict[str, Any] | None = None,
    detail: dict[str, Any] | None = None,
) -> Event:
    return Event(
        0,
        "",
        "local:1000(retrain)@research",
        "cli",
        action,
        changes=tuple(changes),
        evidence=evidence,
        detail=detail or {},
    )
