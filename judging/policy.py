"""What the promote gate asks for."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any

from pydantic import TypeAdapter


@dataclass(frozen=True)
class Policy:
    """The bounds of the promote gate.

    `gate`: `evidence`, or `none` for no verdict but the quarantine's. `min_probability`: P(challenger better) by the
    block bootstrap, and P(timing is skill); both are asked for more, the more looks there were. Drawdowns are shares
    of the high before (0.3 is 30 %); a champion's counts as `drawdown_floor` at least. `min_deflated_sharpe` is the
    probability that the Sharpe ratio is no luck of many looks. `min_sharpe` is an annualised ratio, for a key without
    a champion. `max_data_age`: of the last bar that was judged on; None: not asked. `min_walk_forward`: of the joined
    folds, P(timing is skill) and P(Sharpe ratio above what luck gave the grid); None: not asked. `training_span`: who
    vouches that no bar of the window was trained on, `declared` (meta.json) or `registered` (they are of after the
    registration). `accept`: who may have measured; `accept_kinds`: `artefact`, or a `recipe` too that was refitted on
    later bars. `resamples`, `block_bars` (mean, None: estimated) and `seed` are the bootstrap's.
    `hand_edits`: with `hold` the champion is what was decided, whatever an edit of the index put into production.
    """

    gate: str
    min_probability: float
    min_bars: int
    min_trades: int
    max_drawdown: float
    max_drawdown_ratio: float | None
    drawdown_floor: float
    min_sharpe: float
    min_deflated_sharpe: float
    min_walk_forward: float | None
    training_span: str
    accept: tuple[str, ...]
    accept_kinds: tuple[str, ...]
    require_training_record: bool
    max_evidence_age: timedelta
    max_data_age: timedelta | None
    resamples: int
    block_bars: float | None
    seed: int
    hand_edits: str

    @classmethod
    def of(cls, section: Any) -> Policy:
        """The bounds of whatever has attributes of these names, such as the configuration's `promotion`."""
        return cls(**{item.name: getattr(section, item.name) for item in fields(cls)})

    def to_dict(self) -> dict[str, Any]:
        """For the event: plain JSON values, ages as ISO 8601 durations (`P7D`)."""
        return dict(_JSON.dump_python(self, mode="json"))


_JSON = TypeAdapter(Policy)


def span_text(span: timedelta) -> str:
    """An age in words: hours up to a day, days from there on."""
    hours = span.total_seconds() / 3600
    return f"{hours / 24:.1f} days" if abs(hours) >= 24 else f"{hours:.1f} hours"
