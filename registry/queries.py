"""What the registry holds, for readers. None of these writes or locks anything."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import structlog

from signalserve.common.key import Key
from signalserve.registry.artifacts import (
    LoadedModel,
    load_pickle,
    read_meta,
    run_dir,
    validate_registry_entry,
    verify,
)
from signalserve.registry.entry import ModelRegistryEntry, Status
from signalserve.registry.lifecycle import entry_of
from signalserve.registry.store import DEFAULT_BASE_DIR, View, open_store

_log = structlog.get_logger("registry")


def newest_first(entries: Iterable[ModelRegistryEntry]) -> list[ModelRegistryEntry]:
    """Sorted by `created_at`, and by the index's order where that is equal."""
    numbered = list(enumerate(entries))
    numbered.sort(key=lambda item: (item[1].created, item[0]), reverse=True)
    return [entry for _, entry in numbered]


def select(
    view: View,
    *,
    symbol: str | None = None,
    timeframe: str | None = None,
    model_type: str | None = None,
    statuses: Iterable[str] = (),
) -> list[ModelRegistryEntry]:
    """The entries that pass every filter that is given, newest first."""
    wanted = {str(status) for status in statuses}
    return newest_first(
        entry
        for entry in view.state.entries.values()
        if (symbol is None or entry.symbol == symbol)
        and (timeframe is None or entry.timeframe == timeframe)
        and (model_type is None or entry.model_type.casefold() == model_type.casefold())
        and (not wanted or entry.status in wanted)
    )


def load_registry(base_dir: Path | str = DEFAULT_BASE_DIR) -> list[ModelRegistryEntry]:
    """Every entry, in the index's order. Rows that can't be read are warned about and left out."""
    view = open_store(base_dir).view()
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
    view = open_store(base_dir).view()
    statuses = () if status is None else (status,)
    return select(view, symbol=symbol, timeframe=timeframe, model_type=model_type, statuses=statuses)


def get_latest_model(
    base_dir: Path | str, symbol: str, timeframe: str, model_type: str | None = None
) -> ModelRegistryEntry | None:
    """The newest entry of status success, candidate or production whose artefacts are valid.

    Broken ones are passed over with a warning; no file is changed.
    """
    view = open_store(base_dir).view()
    usable = (Status.SUCCESS, Status.CANDIDATE, Status.PRODUCTION)
    for entry in select(view, symbol=symbol, timeframe=timeframe, model_type=model_type, statuses=usable):
        if _valid(base_dir, entry, view):
            return entry
    return None


def get_latest_production_model(
    base_dir: Path | str, symbol: str, timeframe: str, model_type: str | None = None
) -> ModelRegistryEntry | None:
    """The production model of a key, if its artefacts are valid; a row that was set by hand counts."""
    view = open_store(base_dir).view()
    model_id = view.state.production(Key(symbol, timeframe))
    if model_id is None:
        return None
    entry = view.state.entries[model_id]
    if model_type is not None and entry.model_type.casefold() != model_type.casefold():
        return None
    return entry if _valid(base_dir, entry, view) else None


def load_model_by_id(base_dir: Path | str, model_id: str) -> LoadedModel:
    """The fitted model and its metadata.

    This opens `model.joblib`, after its digest was checked where one was taken; a legacy folder is opened on
    the caller's word.

    Raises:
        UnknownModelError, ArtifactError: there is none, or it is not what was registered.
    """
    state = open_store(base_dir).view().state
    entry = entry_of(state, model_id)
    folder = run_dir(base_dir, entry)
    meta = read_meta(folder, entry)
    if state.digests.get(model_id):
        verify(base_dir, entry, state.digests[model_id])
    return LoadedModel(load_pickle(folder / "model.joblib"), meta)


def _valid(base_dir: Path | str, entry: ModelRegistryEntry, view: View) -> bool:
    validation = validate_registry_entry(base_dir, entry, view.state.digests.get(entry.model_id, ""))
    if not validation:
        _log.warning(
            "registry.entry_passed_over", model_id=entry.model_id, problems=list(validation.problems)
        )
    return bool(validation)
