"""The folders of models that have left: which may be deleted, and their deletion, which holds no lock.

1. Only a folder of the registry itself goes: `{base_dir}/{model_id}`, and no link. No `path` is followed.
2. It must be the model's own: with the manifest that the log took the digest of, or where it took none with a meta.json
   of its model_id; or with nothing in it. A row alone makes no folder a model's, nor does an id that was used before.
3. It stays where an entry may need it: its own that was put back meanwhile, another one whose `path` leads there, of
   which files are links into it, or whose folder lies in it or around it.
4. It stays while it may be at work (`registry/runs.py`). What can't be deleted is said, and fails nothing.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

from signalserve.common.files import behind_links, file_sha256
from signalserve.predictors.contents import LARGEST, MANIFEST_FILE
from signalserve.predictors.manifest import MODEL_FILE
from signalserve.registry.artefact import Artefacts
from signalserve.registry.entry import ModelRegistryEntry
from signalserve.registry.errors import ArtefactError
from signalserve.registry.metadata import META_FILE, ModelMetadata
from signalserve.registry.runs import BUILDING_PREFIX, is_being_built
from signalserve.registry.state import RegistryState


def delete_folders(artefacts: Artefacts, names: Collection[str], state: RegistryState) -> dict[str, str]:
    """Delete the folders of models that are in this state no more; gives those that stay, with the reason."""
    kept = reasons_to_stay(artefacts, names, state)
    for name in names:
        folder = artefacts.base_dir / name
        if name in kept or not folder.is_dir():
            continue
        try:
            shutil.rmtree(folder)
        except OSError as error:
            kept[name] = f"{error.filename or folder}: {error.strerror or error}"
    return kept


def reasons_to_stay(
    artefacts: Artefacts, names: Collection[str], state: RegistryState, leaving: Collection[str] = ()
) -> dict[str, str]:
    """Name -> why the folder of that name must not be deleted, for those of which one is there and must not.

    `leaving` are models of the state that are to leave it before.
    """
    if not names:
        return {}
    staying = {model_id: entry for model_id, entry in state.entries.items() if model_id not in leaving}
    named = _named_by_others(staying)
    near = _linked_by_others(artefacts, staying) | _around_others(artefacts, staying)
    kept: dict[str, str] = {}
    for name in names:
        folder = artefacts.base_dir / name
        if Path(name).name != name or name in ("", ".."):  # no index has such an id: the last guard
            kept[name] = "its name leads elsewhere"
        elif folder.is_symlink():
            kept[name] = "it is a link"
        elif not folder.is_dir():
            continue
        elif name in staying:
            kept[name] = "its entry is back"
        elif name in named:
            kept[name] = f"the path of {named[name]} leads there"
        elif name in near:
            kept[name] = near[name]
        elif is_being_built(folder):
            kept[name] = "a process may be at work on it"
        elif why := _strange(folder, state):
            kept[name] = why
    return kept


def _strange(folder: Path, state: RegistryState) -> str:
    """Why a folder is not that of the model of its name; empty where it is."""
    if folder.name.startswith(BUILDING_PREFIX) or _is_empty(folder):
        return ""
    if digest := state.digests.get(folder.name):
        known = _manifest_sha256(folder) == digest
        return "" if known else f"its {MANIFEST_FILE} is not the one that the log knows: it was written since"
    try:
        found = ModelMetadata.read(folder / META_FILE).model_id
    except ArtefactError as error:
        return f"nothing says that it is a model's: {error}"
    return "" if found == folder.name else f"its {META_FILE} is of {found}"


def _manifest_sha256(folder: Path) -> str:
    try:
        return file_sha256(folder / MANIFEST_FILE, largest=LARGEST[MANIFEST_FILE])
    except OSError:
        return ""


def _is_empty(folder: Path) -> bool:
    try:
        return next(folder.iterdir(), None) is None
    except OSError:
        return False


def _named_by_others(entries: Mapping[str, ModelRegistryEntry]) -> dict[str, str]:
    """Folder's name -> the model whose `path` ends in it, where that is not the model's own."""
    found: dict[str, str] = {}
    for entry in entries.values():
        path = Path(entry.path)
        name = path.parent.name if path.name == MODEL_FILE else path.name
        if name and name != entry.model_id:
            found[name] = entry.model_id
    return found


def _linked_by_others(artefacts: Artefacts, entries: Mapping[str, ModelRegistryEntry]) -> dict[str, str]:
    """Folder's name -> why it stays, for the folders of the registry that files of an entry are links into."""
    base = artefacts.base_dir
    found: dict[str, str] = {}
    for model_id, entry in entries.items():
        with suppress(OSError), os.scandir(artefacts.folder(entry)) as files:
            for file in files:
                there = behind_links(Path(file.path)) if file.is_symlink() else base
                if there != base and there.is_relative_to(base):
                    name = there.relative_to(base).parts[0]
                    found[name] = f"{file.name} of {model_id} is a link into it"
    return found


def _around_others(artefacts: Artefacts, entries: Mapping[str, ModelRegistryEntry]) -> dict[str, str]:
    """Folder's name -> why it stays, for the folders of the registry in or around which the folder of an entry lies."""
    base = artefacts.base_dir
    found: dict[str, str] = {}
    for model_id, entry in entries.items():
        folder = artefacts.folder(entry)
        if folder == base / model_id and not folder.is_symlink():
            continue
        there = folder.resolve()
        if base.is_relative_to(there):
            found |= {item.name: f"the folder of {model_id} is around it" for item in base.iterdir()}
        elif there.is_relative_to(base):
            found[there.relative_to(base).parts[0]] = f"the folder of {model_id} lies in it"
    return found
