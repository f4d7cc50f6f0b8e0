"""The functions that research code calls, by the names that it knows: a thin face over `Registry`.

Each works on a folder. None reads a configuration: what a promote must show is said by the `gate` that is handed in.
Research code asks what there is before it registers its first model: listing and finding answer with nothing, and a
warning, where there never was a registry.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from signalserve.common.log import LibraryLog
from signalserve.registry.artefact import Artefacts, LoadedModel
from signalserve.registry.description import Description
from signalserve.registry.entry import ModelRegistryEntry
from signalserve.registry.folder_store import DEFAULT_BASE_DIR, open_store
from signalserve.registry.gate import Gate
from signalserve.registry.metadata import ModelMetadata
from signalserve.registry.registry import Registry, open_registry
from signalserve.registry.signing import Signer

_log = LibraryLog("registry")


def init_registry(base_dir: Path | str = DEFAULT_BASE_DIR) -> bool:
    """Make an empty registry in a folder, for a server that is to start before the first model.

    True where that was needed. Its mark is an empty `registry_events.jsonl`, by which it differs from the mount point
    of a disk that is away.

    Raises:
        RegistryGoneError: this process saw one there, and it shall come back.
        StorageError: it can't be made.
    """
    return open_store(base_dir).make()


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
    pins: Iterable[str] = (),
    request_id: str = "",
    actor: str = "",
    via: str = "python",
    signer: Signer | None = None,
) -> ModelRegistryEntry:
    """Make the run directory `{base_dir}/{meta.model_id}` an entry of the registry; see `Registry.register`.

    `max_models_per_symbol_tf`: how many to keep per symbol, timeframe and model_type; `max_models` is its old name.
    `pins`: model_ids that this keeps whatever their age. `signer`: signs the events (`signer_of`).

    Raises:
        InvalidArgumentError, ArtefactError, StorageError: nothing was registered.
    """
    keep = max_models_per_symbol_tf if max_models_per_symbol_tf is not None else max_models
    return open_registry(base_dir, pins=pins, signer=signer).register(
        meta,
        status,
        keep=keep,
        model=model,
        reference=reference,
        error=error,
        request_id=request_id,
        actor=actor,
        via=via,
    )


def load_registry(base_dir: Path | str = DEFAULT_BASE_DIR) -> list[ModelRegistryEntry]:
    """Every entry, in the index's order. Rows that can't be read are warned about and left out.

    Raises:
        StorageError: the registry can't be read; likewise from every function below.
    """
    view = _read(base_dir).view()
    for row in view.unreadable:
        _log.warning("registry.row_skipped", line=row.line, why=row.why)
    return list(view.state.entries.values())


def list_models(
    base_dir: Path | str = DEFAULT_BASE_DIR,
    symbol: str | None = None,
    timeframe: str | None = None,
    model_type: str | None = None,
    status: str | None = None,
) -> list[ModelRegistryEntry]:
    """The entries that pass every filter, newest first; `model_type` compares without case."""
    statuses = () if status is None else (status,)
    return _read(base_dir).models(symbol, timeframe, model_type, statuses)


def get_latest_model(
    base_dir: Path | str, symbol: str, timeframe: str, model_type: str | None = None
) -> ModelRegistryEntry | None:
    """The newest entry of status success, candidate or production whose artefacts are valid.

    Broken ones are passed over with a warning; no file is changed.
    """
    return _read(base_dir).latest(symbol, timeframe, model_type)


def get_latest_production_model(
    base_dir: Path | str, symbol: str, timeframe: str, model_type: str | None = None
) -> ModelRegistryEntry | None:
    """The production model of a key, if its artefacts are valid; a row that was set by hand counts."""
    return _read(base_dir).latest_production(symbol, timeframe, model_type)


def load_model_by_id(base_dir: Path | str, model_id: str) -> LoadedModel:
    """The fitted model and its metadata; see `Registry.load`.

    Raises:
        UnknownModelError, ArtefactError: there is none, or it is not what was registered.
    """
    return open_registry(base_dir).load(model_id)


def validate_registry_entry(
    base_dir: Path | str, entry: ModelRegistryEntry, digest: str | None = None
) -> Description:
    """Whether an entry's artefacts are whole: files there, metadata readable, digests as registered.

    `digest` None looks the digest up in the event log. Nothing is unpickled.
    """
    artefacts = Artefacts(base_dir)
    if digest is None:
        return artefacts.seen(_read(base_dir).state, entry).describe(thorough=True)
    return artefacts.of(entry, digest).describe(thorough=True)


def promote_model(
    model_id: str,
    stage: str = "production",
    base_dir: Path | str = DEFAULT_BASE_DIR,
    *,
    gate: Gate | None = None,
    reason: str = "",
    force: bool = False,
    allow_unserved: bool = False,
    actor: str = "",
    via: str = "python",
    signer: Signer | None = None,
) -> ModelRegistryEntry:
    """Move one model to a stage, `production`, `candidate` or `archived`, and give its entry.

    `gate` decides on the first two (`signalserve.judging.PromoteGate`); without one, only `force` and a reason pass.
    `signer`: signs the event.

    Raises:
        InvalidArgumentError: another stage; and the errors of `Registry.promote`, `make_candidate`, `archive`.
    """
    return open_registry(base_dir, gate=gate, signer=signer).move(
        model_id,
        stage,
        reason=reason,
        force=force,
        allow_unserved=allow_unserved,
        actor=actor,
        via=via,
    )


def _read(base_dir: Path | str) -> Registry:
    registry = open_registry(base_dir, unmade_is_empty=True)
    if not registry.store.exists():
        _log.warning("registry.none_there", path=str(base_dir))
    return registry
