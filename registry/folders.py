"""The folders of models that have left: which may be deleted, and their deletion, which holds no lock.

1. Only a folder of the registry itself goes: `{base_dir}/{model_id}`, and no link.
2. It stays where an entry may need it: its own that was put back meanwhile, or another one whose `path` leads there.
3. It stays while it may be at work (`registry/runs.py`). What can't be deleted is said, and fails nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from signalserve.predictors.manifest import MODEL_FILE
from signalserve.registry.runs import is_being_built
from signalserve.registry.state import RegistryState


def delete_folders(base: Path, model_ids: Iterable[str], state: RegistryState) -> dict[str, str]:
    """Delete the folders of models that are in this state no more; gives those that stay, with the reason."""
    named = _named_by_others(state)
    kept: dict[str, str] = {}
    for model_id in model_ids:
        folder = base / model_id
        if Path(model_id).name != model_id or model_id in (
            "",
            "..",
        ):  # no index has such an id: the last guard
            kept[model_id] = "its name leads elsewhere"
        elif folder.is_symlink():
            kept[model_id] = "it is a link"
        elif not folder.is_dir():
            continue
        elif model_id in state.entries:
            kept[model_id] = "its entry is back"
        elif model_id in named:
            kept[model_id] = f"the path of {named[model_id]} leads there"
        elif is_being_built(folder):
            kept[model_id] = "a process may be at work on it"
        else:
            try:
                shutil.rmtree(folder)
            except OSError as error:
                kept[model_id] = f"{error.filename or folder}: {error.strerror or error}"
    return kept


def _named_by_others(state: RegistryState) -> dict[str, str]:
    """Folder's name -> the model whose `path` ends in it, where that is not the model's own."""
    found: dict[str, str] = {}
    for entry in state.entries.values():
        path = Path(entry.path)
        name = path.parent.name if path.name == MODEL_FILE else path.name
        if name and name != entry.model_id:
            found[name] = entry.model_id
    return found
