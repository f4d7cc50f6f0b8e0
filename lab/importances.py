"""How much each feature counts, on one scale: shares that sum to 1, the largest first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from signalserve.lab.plain import number, text_of
from signalserve.registry import Artefact
from signalserve.registry.artefact import IMPORTANCES_FILE
from signalserve.registry.errors import RegistryError


@dataclass(frozen=True)
class Importance:
    """A feature's share, from 0 to 1."""

    feature: str
    importance: float


@dataclass(frozen=True)
class Importances:
    """`source` names the file, empty where there are none; `problem` says why."""

    items: tuple[Importance, ...]
    source: str
    problem: str = ""


def importances_of(artefact: Artefact) -> Importances:
    """A model's importances: of feature_importances.csv, else of meta.json."""
    source = IMPORTANCES_FILE if artefact.has(IMPORTANCES_FILE) else "meta.json"
    try:
        items = normalised(artefact.importances())
    except RegistryError as error:
        return Importances((), "", text_of(error))
    if not items:
        return Importances((), "", "none were kept with this model")
    return Importances(items, source)


def normalised(found: Iterable[tuple[str, float]]) -> tuple[Importance, ...]:
    """Shares that sum to 1, largest first, equal ones by name; what is no number, or negative, counts nothing."""
    values: dict[str, float] = {}
    for name, value in found:
        values[text_of(name)] = max(0.0, number(value) or 0.0)
    # divided by the largest first: a sum of huge numbers is infinite
    largest = max(values.values(), default=0.0)
    scaled = {name: value / largest if largest > 0.0 else 0.0 for name, value in values.items()}
    total = sum(scaled.values())
    shares = {name: value / total if total > 0.0 else 0.0 for name, value in scaled.items()}
    ordered = sorted(shares.items(), key=lambda item: (-item[1], item[0]))
    return tuple(Importance(name, share) for name, share in ordered)
