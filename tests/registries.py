"""A registry for tests: a folder, and the gate that the test wants."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from signalserve.config.evidence import PromotionSettings
from signalserve.judging import Evidence, Policy, PromoteGate
from signalserve.registry import Registry, open_registry

OPEN = PromotionSettings(gate="none")


def gate_of(policy: PromotionSettings = OPEN, rules: Mapping[str, Any] | None = None) -> PromoteGate:
    """The promote gate by these bounds; by default one that asks for no evidence."""
    return PromoteGate(Policy.of(policy), rules)


def registry_at(
    base: Path,
    policy: PromotionSettings = OPEN,
    rules: Mapping[str, Any] | None = None,
    pins: Iterable[str] = (),
) -> Registry:
    """The registry of a folder, with such a gate."""
    return open_registry(base, gate=gate_of(policy, rules), pins=pins)


def recorded(evidence: Evidence) -> tuple[str, dict[str, Any]]:
    """What `Registry.record_evaluation` takes of an evaluation."""
    return evidence.challenger.model_id, evidence.to_dict()
