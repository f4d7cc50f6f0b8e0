"""What the registry calls answer: frozen values, each built from its message by `from_proto`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..v1 import registry_pb2
from .basis import Basis
from .values import utc_time

_STATUS_PREFIX = "MODEL_STATUS_"


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """One registry entry. `status`: failed, success, candidate, production or archived.

    `by_hand`: an edit of the index put it into production, without evidence. `basis`: what a candidate, or a model in
    production, was let in on; None for any other, and of an older server. `refit_of`: the model by whose recipe it was
    refitted on all bars, and whose evidence it carries; empty for none.
    """

    model_id: str
    symbol: str
    timeframe: str
    model_type: str
    status: str
    created_at: str
    cum_return: float | None
    sharpe: float | None
    digest: str
    engine: str
    engine_reason: str
    served: bool
    quarantined: bool
    by_hand: bool
    refit_of: str
    problems: tuple[str, ...]
    basis: Basis | None = None

    @classmethod
    def from_proto(cls, message: registry_pb2.Model) -> ModelInfo:
        """Copy the message."""
        return cls(
            model_id=message.model_id,
            symbol=message.symbol,
            timeframe=message.timeframe,
            model_type=message.model_type,
            status=status_name(message.status),
            created_at=message.created_at,
            cum_return=message.cum_return if message.HasField("cum_return") else None,
            sharpe=message.sharpe if message.HasField("sharpe") else None,
            digest=message.digest,
            engine=message.engine,
            engine_reason=message.engine_reason,
            served=message.served,
            quarantined=message.quarantined,
            by_hand=message.by_hand,
            refit_of=message.refit_of,
            problems=tuple(message.problems),
            basis=Basis.from_proto(message.basis) if message.HasField("basis") else None,
        )


class ModelList(list[ModelInfo]):
    """The models of a listing, newest first, and the index rows that the server could not read."""

    def __init__(self, models: list[ModelInfo], unreadable_rows: tuple[str, ...] = ()) -> None:
        super().__init__(models)
        self.unreadable_rows = unreadable_rows


@dataclass(frozen=True, slots=True)
class ModelDetails:
    """All that the registry knows of one model; `importances` as in its file, `metadata`: meta.json as it stands.

    `feature_set`: which definition computed its features, as it was registered; "" where nobody knows.
    """

    model: ModelInfo
    feature_names: tuple[str, ...]
    schema_hash: str
    importances: tuple[tuple[str, float], ...]
    metadata: dict[str, Any]
    feature_set: str = ""

    @classmethod
    def from_proto(cls, message: registry_pb2.ModelDetails) -> ModelDetails:
        """Copy the message."""
        return cls(
            model=ModelInfo.from_proto(message.model),
            feature_names=tuple(message.feature_names),
            schema_hash=message.schema_hash,
            importances=tuple((item.feature, item.importance) for item in message.importances),
            metadata=json.loads(message.metadata_json) if message.metadata_json else {},
            feature_set=message.feature_set,
        )


@dataclass(frozen=True, slots=True)
class Transition:
    """What a promote, rollback or archive did to one model; `previous_model_id` was in production before."""

    symbol: str
    timeframe: str
    model_id: str
    previous_model_id: str

    @classmethod
    def from_proto(cls, message: registry_pb2.Transition) -> Transition:
        """Copy the message."""
        return cls(message.symbol, message.timeframe, message.model_id, message.previous_model_id)


@dataclass(frozen=True, slots=True)
class LaggingWorker:
    """A process of the server that did not serve a change yet when its call was answered, and what kept it."""

    worker: int
    process_id: int
    served_revision: int
    why: str


@dataclass(frozen=True, slots=True)
class PromoteResult:
    """What a promote, rollback or archive changed, all in one registry revision.

    `lagging`: workers of the server that did not serve it yet. `log_head`: the hash of the change's event, for
    `verify-log --expect`; empty where nothing changed, or of an older server.
    """

    transitions: tuple[Transition, ...]
    registry_revision: int
    served_revision: int
    request_id: str
    lagging: tuple[LaggingWorker, ...] = ()
    log_head: str = ""

    @property
    def served(self) -> bool:
        """Whether the server serves the new revision already, with all of its workers."""
        return self.served_revision >= self.registry_revision and not self.lagging

    @classmethod
    def from_proto(
        cls,
        message: registry_pb2.PromoteResponse | registry_pb2.RollbackResponse | registry_pb2.ArchiveResponse,
        request_id: str,
    ) -> PromoteResult:
        """Copy the message; `request_id` is the one that was sent."""
        return cls(
            transitions=tuple(Transition.from_proto(item) for item in message.transitions),
            registry_revision=message.registry_revision,
            served_revision=message.served_revision,
            request_id=request_id,
            log_head=message.log_head,
            lagging=tuple(
                LaggingWorker(item.worker, item.process_id, item.served_revision, item.why)
                for item in message.lagging
            ),
        )


@dataclass(frozen=True, slots=True)
class StatusChange:
    """One model's change of status; `from_status` is "" for a new model, `to_status` for a deleted one."""

    symbol: str
    timeframe: str
    model_id: str
    from_status: str
    to_status: str
    digest: str

    @classmethod
    def from_proto(cls, message: registry_pb2.StatusChange) -> StatusChange:
        """Copy the message."""
        return cls(
            symbol=message.symbol,
            timeframe=message.timeframe,
            model_id=message.model_id,
            from_status=status_name(message.from_status),
            to_status=status_name(message.to_status),
            digest=message.digest,
        )


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One revision of the registry: who did what, by which way and why. `time` in UTC."""

    revision: int
    time: datetime | None
    actor: str
    via: str
    action: str
    request_id: str
    reason: str
    forced: bool
    changes: tuple[StatusChange, ...]
    evidence: dict[str, Any]
    hash: str

    @classmethod
    def from_proto(cls, message: registry_pb2.Event) -> AuditEvent:
        """Copy the message."""
        return cls(
            revision=message.revision,
            time=utc_time(message.event_time) if message.HasField("event_time") else None,
            actor=message.actor,
            via=message.via,
            action=message.action,
            request_id=message.request_id,
            reason=message.reason,
            forced=message.forced,
            changes=tuple(StatusChange.from_proto(change) for change in message.changes),
            evidence=json.loads(message.evidence_json) if message.evidence_json else {},
            hash=message.hash,
        )


def status_name(value: registry_pb2.ModelStatus.ValueType) -> str:
    """Return the status as the registry spells it, e.g. "production"; "" for unspecified."""
    if value == registry_pb2.MODEL_STATUS_UNSPECIFIED:
        return ""
    try:
        return registry_pb2.ModelStatus.Name(value).removeprefix(_STATUS_PREFIX).lower()
    except ValueError:  # a newer server knows more of them
        return f"status_{value}"


def status_value(name: str) -> registry_pb2.ModelStatus.ValueType:
    """Return the enum value of a status; ValueError with the known ones."""
    known = [status_name(value) for value in registry_pb2.ModelStatus.values() if value]
    if name.lower() not in known:
        raise ValueError(f"status {name!r} is unknown; there are {', '.join(known)}")
    return registry_pb2.ModelStatus.Value(_STATUS_PREFIX + name.upper())
