"""What lies in a registry's folder that only one with an event log comes by, so that a log that has gone is missed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from signalserve.common.files import is_folder
from signalserve.predictors.contents import MANIFEST_FILE
from signalserve.registry.checkpoint import CHECKPOINT_FILE

# an index that was not followed, beside the one that is
ASIDE_PREFIX = "registry_index.aside-"
# an old copy that had been edited, as it was before its edits were taken
MERGED_PREFIX = "registry_index.merged-"
# a log that was broken, beside the one that is not
LOG_ASIDE_PREFIX = "registry_events.aside-"


def trace_of_a_log(base: Path, model_ids: Iterable[str]) -> str:
    """What there is beside an index with these models, in words; empty for nothing."""
    folders = (base / name for name in model_ids if is_folder(base / name))
    sealed = next((folder.name for folder in folders if (folder / MANIFEST_FILE).exists()), None)
    if sealed is not None:
        return f"{sealed} was registered or adopted, as its {MANIFEST_FILE} shows"
    found = [
        path.name
        for prefix in (ASIDE_PREFIX, MERGED_PREFIX, LOG_ASIDE_PREFIX, CHECKPOINT_FILE)
        for path in base.glob(f"{prefix}*")
    ]
    return f"{min(found)} was kept beside one" if found else ""
