"""A serving snapshot -> ServingStatus."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime

from signalserve.server.snapshot import LoadFailure, ServedModel, ServingSnapshot
from signalserve.server.wire.basis import basis_message
from signalserve.v1 import serving_status_pb2


def serving_status(
    snapshot: ServingSnapshot,
    *,
    seen_revision: int,
    draining: bool,
    started: datetime,
    version: str,
    now: float,
    warnings: Sequence[str] = (),
    registry_error: str = "",
    worker: int = 0,
) -> serving_status_pb2.ServingStatus:
    """What this process serves; `now` is a Unix time, `warnings` are those that the snapshot doesn't know."""
    status = serving_status_pb2.ServingStatus(
        registry_revision=max(snapshot.revision, 0),
        seen_revision=max(seen_revision, snapshot.revision, 0),
        ready=snapshot.ready,
        draining=draining,
        version=version,
        process_id=os.getpid(),
        warnings=[*snapshot.warnings, *warnings],
        registry_error=registry_error,
        worker=worker,
        load_errors=[_load_error(failure) for failure in snapshot.failures],
        loading=[
            serving_status_pb2.LoadingModel(
                symbol=key.symbol, timeframe=key.timeframe, model_id=pending.model_id
            )
            for key, pending in sorted(snapshot.pending.items())
        ],
    )
    status.start_time.FromDatetime(started)
    for _, served in sorted(snapshot.by_key.items()):
        wanted = snapshot.not_current.get(served.key)
        model = _add_model(status, served, now, wanted.model_id if wanted else "")
        if (basis := snapshot.bases.get(served.model_id)) is not None:
            model.basis.CopyFrom(basis_message(basis))
    return status


def _add_model(
    status: serving_status_pb2.ServingStatus, served: ServedModel, now: float, wanted: str
) -> serving_status_pb2.ServedModel:
    predictor = served.predictor
    model = status.models.add(
        symbol=served.key.symbol,
        timeframe=served.key.timeframe,
        model_id=served.model_id,
        model_digest=predictor.digest,
        schema_hash=predictor.schema_hash,
        feature_set=predictor.feature_set,
        engine=predictor.engine,
        engine_reason=predictor.engine_reason,
        pinned=served.pinned,
        stale=served.is_stale(now),
        wanted_model_id=wanted,
    )
    if served.stale_at is not None:
        model.stale_time.FromSeconds(int(served.stale_at))
    return model


def _load_error(failure: LoadFailure) -> serving_status_pb2.LoadError:
    return serving_status_pb2.LoadError(
        symbol=failure.key.symbol,
        timeframe=failure.key.timeframe,
        model_id=failure.model_id,
        message=failure.message,
        registry_revision=failure.revision,
    )
