"""What the configuration says to the serving core, in plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from types import MappingProxyType

from signalserve.common.key import Key


@dataclass(frozen=True, slots=True)
class ScoringLimits:
    """What a question may ask for, and when its answer is flagged or refused.

    `max_features` bounds the names of a question, or a model's own width where that is more.
    """

    max_rows: int = 1_000_000
    max_features: int = 4096
    max_batch_requests: int = 10_000
    stale_bar_factor: float | None = 3.0
    refuse_stale: bool = False


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """Which models are served beside those in production, and how they are opened.

    `for_its_key` is a model_id that is pinned for the one key that it belongs to; `unpickle` is the policy
    `never`, `verified` or `always`. `hold_hand_edits`: what was put into production by hand is served once confirmed.
    """

    for_its_key: str | None = None
    pins: Mapping[Key, str] = field(default_factory=lambda: MappingProxyType({}))
    max_age: timedelta | None = None
    unpickle: str = "verified"
    hold_hand_edits: bool = False
