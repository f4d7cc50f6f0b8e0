"""Answers that are no read model's own, and what changes are asked with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from signalserve.common.key import MAX_LENGTH
from signalserve.lab.backtests import Backtest
from signalserve.lab.catalogue import Row
from signalserve.lab.importances import Importance
from signalserve.lab.live import LiveEngine


@dataclass(frozen=True)
class KeyModels:
    """The usable models of a key, newest first."""

    symbol: str
    timeframe: str
    models: tuple[Row, ...]


@dataclass(frozen=True)
class ModelImportances:
    """A model's importances, largest first; their sum is 1 unless there are none, where `problem` says why."""

    model_id: str
    source: str
    problem: str
    importances: tuple[Importance, ...]


@dataclass(frozen=True)
class ModelBacktests:
    """A model's backtests, newest first."""

    model_id: str
    backtests: tuple[Backtest, ...]


@dataclass(frozen=True)
class KeyName:
    """A symbol and a timeframe."""

    symbol: str
    timeframe: str


@dataclass(frozen=True)
class Keys:
    """Every key that has or had a model, in order."""

    keys: tuple[KeyName, ...]


@dataclass(frozen=True)
class Engines:
    """The live engines, by name."""

    engines: tuple[LiveEngine, ...]


Name = Annotated[str, Field(min_length=1, max_length=MAX_LENGTH)]
Reason = Annotated[str, Field(max_length=2_000, description="Why; it is kept in the audit log.")]
RequestId = Annotated[
    str | None,
    Field(
        min_length=1, max_length=MAX_LENGTH, description="A repeat with the same id gets the first answer."
    ),
]
_MOST = 1_000


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PromoteOne(_Request):
    """One model, and what must be in production of its key now."""

    model_id: Name
    expected_production_model_id: Annotated[
        str | None,
        Field(max_length=MAX_LENGTH, description="null: not checked; empty: nothing may be in production."),
    ] = None


class PromoteRequest(_Request):
    """Models to put into production, all or none; `force` goes past the gate and needs a reason."""

    models: Annotated[list[PromoteOne], Field(min_length=1, max_length=_MOST)]
    reason: Reason = ""
    force: bool = False
    request_id: RequestId = None


class KeyRequest(_Request):
    """A symbol and a timeframe."""

    symbol: Name
    timeframe: Name


class RollbackRequest(_Request):
    """Keys to take back to the model before, all or none, each if what is expected of it is in production now."""

    keys: Annotated[list[KeyRequest], Field(min_length=1, max_length=_MOST)]
    expected_production_model_ids: Annotated[list[Name], Field(max_length=_MOST)] = []
    reason: Reason
    request_id: RequestId = None


class ArchiveRequest(_Request):
    """Models to retire, all or none; `allow_unserved` lets a key be left with nothing in production."""

    model_ids: Annotated[list[Name], Field(min_length=1, max_length=_MOST)]
    reason: Reason = ""
    allow_unserved: bool = False
    request_id: RequestId = None
