"""What an evaluation found: the numbers that the promote gate reads, as the event log keeps them.

1. Challenger and champion are measured on the same bars, all of them after both models' training spans.
2. The record names both models by id and digest: evidence on other files, or against another champion, is
   evidence on something else.
3. `kind` is `artefact` where these very models were measured, `recipe` where a model was refitted afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True)
class Measured:
    """One model on the window: returns are net of costs.

    `sharpe` is annualised; `max_drawdown` a share of the high before; `deflated_sharpe` the probability that
    the Sharpe ratio is above what so many tries give by luck.
    """

    model_id: str
    digest: str
    train_end: str
    cum_return: float
    sharpe: float
    max_drawdown: float
    trades: int
    deflated_sharpe: float | None = None
    auc: float | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Measured:
        """From the log."""
        return cls(**{item.name: values[item.name] for item in fields(cls)})


@dataclass(frozen=True)
class Evidence:
    """An evaluation of `challenger`, against `champion` where the key had one.

    `window_start` and `window_end` are open times of bars; `probability_better` is P(challenger better) by
    the stationary block bootstrap of the difference in per-bar returns. `tries` are the evaluations of the
    key so far, this one included; `trials` what the challenger's grid tried.
    """

    challenger: Measured
    champion: Measured | None
    evaluated_at: str
    window_start: str
    window_end: str
    bars: int
    probability_better: float | None = None
    mean_difference: float | None = None
    block_bars: float | None = None
    resamples: int = 0
    seed: int = 0
    tries: int = 1
    trials: int = 1
    kind: str = "artefact"
    data: Mapping[str, Any] = field(default_factory=dict)
    rules: Mapping[str, Any] = field(default_factory=dict)

    @property
    def evaluated(self) -> datetime:
        """When it was made."""
        moment = datetime.fromisoformat(self.evaluated_at)
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)

    def to_dict(self) -> dict[str, Any]:
        """For the log."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Evidence:
        """From the log.

        Raises:
            KeyError, TypeError, ValueError: it is not what `to_dict` wrote.
        """
        known = {item.name: values[item.name] for item in fields(cls) if item.name in values}
        known["challenger"] = Measured.from_dict(values["challenger"])
        champion = values["champion"]
        known["champion"] = Measured.from_dict(champion) if champion is not None else None
        evidence = cls(**known)
        datetime.fromisoformat(evidence.evaluated_at)
        return evidence
