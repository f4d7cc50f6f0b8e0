"""A failure that came before there was a run to keep it, or after its worker was gone, as a `failed` entry."""

from __future__ import annotations

import shutil

from signalserve.registry import ModelMetadata, Registry, Status, new_run
from signalserve.registry.errors import RegistryError
from signalserve.registry.metadata import META_FILE
from signalserve.registry.runs import Announce


def register_failure(
    registry: Registry,
    symbol: str,
    timeframe: str,
    model_type: str,
    error: str,
    *,
    keep: int | None,
    request_id: str,
    actor: str = "",
    via: str = "python",
    announce: Announce | None = None,
) -> str | None:
    """Register a failed training run, and give its model_id; the newest `keep` runs of its kind stay.

    Where the request_id has registered a model already, that one is the answer. None: it can't be registered (a
    symbol that can be no folder's name, a registry that can't be written).
    """
    base = registry.artefacts.base_dir
    try:
        registry.store.check()  # a job that fails because the registry has gone makes no new one
        earlier = registry.state.requests.get(request_id)
        if earlier is not None and earlier.changes:
            return earlier.changes[0].model_id
        with new_run(base, symbol, timeframe, model_type, announce=announce) as run:
            meta = ModelMetadata(
                model_id=run.model_id,
                symbol=symbol,
                timeframe=timeframe,
                model_type=model_type,
                created_at=run.created_at,
                extra={"error": error, "request_id": request_id},
            )
            meta.write(run.path / META_FILE)
            run.commit()
            entry = registry.register(
                meta,
                Status.FAILED,
                keep=keep,
                error=error,
                request_id=request_id,
                actor=actor,
                via=via,
            )
            if entry.model_id != run.model_id:  # its worker was alive after all
                shutil.rmtree(run.final_path)
            return entry.model_id
    except (OSError, RegistryError):
        return None
