"""How a run directory becomes an entry: register what was trained here, adopt what was found."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from signalserve.common.moments import parse_moment, second_text, utc_now
from signalserve.config.settings import load_settings
from signalserve.registry.answers import answered, commit
from signalserve.registry.artifacts import (
    MANIFEST_FILE,
    MODEL_FILE,
    adopt_folder,
    load_pickle,
    prove,
    read_meta,
    run_dir,
    seal,
    verify,
)
from signalserve.registry.entry import ModelRegistryEntry, Status
from signalserve.registry.errors import ArtifactError, InvalidArgumentError
from signalserve.registry.events import StatusChange
from signalserve.registry.identifiers import check_name
from signalserve.registry.lifecycle import entry_of, plan_register
from signalserve.registry.metadata import META_FILE, ModelMetadata
from signalserve.registry.retention import retain
from signalserve.registry.state import RegistryState
from signalserve.registry.store import DEFAULT_BASE_DIR, Draft, Origin, open_store

_log = structlog.get_logger("registry")


def register_model(
    meta: ModelMetadata,
    base_dir: Path | str = DEFAULT_BASE_DIR,
    status: str = "success",
    max_models_per_symbol_tf: int | None = None,
    *,
    max_models: int | None = None,
    model: Any = None,
    reference: np.ndarray | None = None,
    error: str | None = None,
    pins: Iterable[str] | None = None,
    request_id: str = "",
    actor: str = "",
    via: str = "python",
) -> ModelRegistryEntry:
    """Make the run directory `{base_dir}/{meta.model_id}` an entry of the registry.

    A folder without a manifest is sealed first: the model is compiled, golden rows and digests are written.
    That opens its `model.joblib`, as the caller has just written it, unless `model` is given; `reference` is
    a matrix [rows, features] of training rows for the golden rows. A `failed` entry needs no artefacts.

    Args:
        meta: the run's metadata; it is written to meta.json where the folder has none.
        base_dir: the registry's folder.
        status: `success` or `failed`.
        max_models_per_symbol_tf: how many to keep per symbol, timeframe and model_type; older entries leave
            the index (never production, pinned or the rollback target).
        max_models: the old name of `max_models_per_symbol_tf`.
        model: the fitted model.
        reference: training rows.
        error: what went wrong, for a failed run.
        pins: model_ids that retention keeps; None asks the configuration.
        request_id: a job's own id: where it has registered a model already, that model's entry is the answer
            and nothing changes.
        actor: who registers; the default is user@host.
        via: cli, rpc, lab or python.

    Raises:
        InvalidArgumentError: a name can't be used, the id is taken, or the status is another.
        ArtifactError: the folder is not whole.
        StorageError: nothing was registered.
    """
    if status not in (Status.SUCCESS, Status.FAILED):
        raise InvalidArgumentError(
            f"a model is registered as success or failed, not {status!r}; promote_model moves it on",
            reason="INVALID_STATUS",
        )
    names = ("model_id", "symbol", "timeframe", "model_type")
    for name in names:
        check_name(name, getattr(meta, name))
    keep = max_models_per_symbol_tf if max_models_per_symbol_tf is not None else max_models
    if keep is not None and keep < 1:
        raise InvalidArgumentError("max_models_per_symbol_tf must be at least 1", reason="INVALID_LIMIT")
    base = Path(base_dir)
    store = open_store(base)
    request = [meta.symbol, meta.timeframe]
    earlier = _registered(store.view().state, request_id, request)
    if earlier is not None:
        return earlier
    folder = base / meta.model_id
    entry = ModelRegistryEntry(
        model_id=meta.model_id,
        symbol=meta.symbol,
        timeframe=meta.timeframe,
        model_type=meta.model_type,
        created_at=meta.created_at or second_text(utc_now()),
        path=str(folder),
        cum_return=meta.metric("cum_return") if status == Status.SUCCESS else math.nan,
        sharpe=meta.metric("sharpe") if status == Status.SUCCESS else math.nan,
        status=status,
    )
    digest, detail = "", dict[str, Any]()
    if status == Status.SUCCESS:
        digest, detail = _take_digest(folder, entry, meta, model, reference)
        detail |= _tested(meta)
    else:
        detail = {"error": error or str(meta.extra.get("error", ""))}
    with store.transaction(Origin(actor, via, request_id=request_id)) as transaction:
        earlier = _registered(transaction.state, request_id, request)
        if earlier is not None:
            return earlier
        commit(transaction, "register", request, plan_register(transaction.state, entry, digest, detail))
        if keep is not None:
            retain(transaction, base, entry, keep, _pins(pins))
    _log.info("registry.registered", model_id=entry.model_id, status=status, digest=digest[:12])
    return entry


def adopt(
    base_dir: Path | str, model_id: str, *, reason: str = "", actor: str = "", via: str = "python"
) -> str:
    """Take the digest of a legacy folder, on its owner's word, and give it.

    This opens the folder's `model.joblib`: only adopt what you trust. A model that already has a digest
    keeps it, if its files still fit.

    Raises:
        UnknownModelError, ArtifactError, StorageError: nothing changed.
    """
    base, store = Path(base_dir), open_store(base_dir)
    state = store.view().state
    entry = entry_of(state, model_id)
    known = state.digests.get(model_id, "")
    if known:
        verify(base, entry, known)
        return known
    if entry.status == Status.FAILED:
        raise ArtifactError(f"{model_id} is a failed training run: there is nothing to adopt")
    folder = run_dir(base, entry)
    digest = adopt_folder(folder, read_meta(folder, entry))
    manifest = prove(base, entry, digest).manifest
    with store.transaction(Origin(actor, via, reason)) as transaction:
        present = entry_of(transaction.state, model_id)
        change = StatusChange(
            present.symbol, present.timeframe, model_id, present.status, present.status, digest
        )
        detail = {"engine": manifest.engine, "engine_reason": manifest.engine_reason}
        transaction.commit(Draft("adopt", (change,), detail))
    _log.info("registry.adopted", model_id=model_id, engine=manifest.engine, digest=digest[:12])
    return digest


def _take_digest(
    folder: Path, entry: ModelRegistryEntry, meta: ModelMetadata, model: Any, reference: np.ndarray | None
) -> tuple[str, dict[str, Any]]:
    if not (folder / MODEL_FILE).is_file():
        raise ArtifactError(
            f"{folder / MODEL_FILE} is missing: write the run directory before registering it"
        )
    if not (folder / META_FILE).exists():
        meta.write(folder / META_FILE)
    if (folder / MANIFEST_FILE).exists():
        digest = adopt_folder(folder, read_meta(folder, entry))
    else:
        stored = read_meta(folder, entry)
        fitted = model if model is not None else load_pickle(folder / MODEL_FILE)
        try:
            digest = seal(folder, stored, fitted, reference).digest
        except ArtifactError as error:
            # registered all the same, as research code always could; it can't be promoted
            _log.warning("registry.not_servable", model_id=entry.model_id, why=str(error))
            return "", {"not_sealed": str(error)}
    manifest = prove(folder.parent, entry, digest).manifest
    return digest, {"engine": manifest.engine, "engine_reason": manifest.engine_reason}


def _tested(meta: ModelMetadata) -> dict[str, Any]:
    """The bars that the training measured the model on, for the event."""
    try:
        span = [parse_moment(meta.extra[name]).isoformat() for name in ("test_start", "test_end")]
    except (KeyError, TypeError, ValueError):
        return {}  # not every model is of our training
    return {"tested": span}


def _registered(state: RegistryState, request_id: str, request: Any) -> ModelRegistryEntry | None:
    """What an earlier register of this request_id made; None where there was none."""
    if answered(state, request_id, "register", request) is None:
        return None
    return entry_of(state, state.requests[request_id].transitions[0].model_id)


def _pins(pins: Iterable[str] | None) -> frozenset[str]:
    if pins is not None:
        return frozenset(pins)
    return load_settings().ml.pinned_ids()
