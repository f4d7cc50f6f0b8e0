"""Models on disk, the index, the log and the lifecycle; knows no gRPC, no statistics and no configuration.

>>> from signalserve.registry import list_models, open_registry, promote_model, register_model
"""

from signalserve.registry.answers import Committed, Looked
from signalserve.registry.artefact import Artefact, LoadedModel, Proof
from signalserve.registry.description import Description
from signalserve.registry.entry import ModelRegistryEntry, Status
from signalserve.registry.functions import (
    get_latest_model,
    get_latest_production_model,
    init_registry,
    list_models,
    load_model_by_id,
    load_registry,
    promote_model,
    register_model,
    validate_registry_entry,
)
from signalserve.registry.gate import Decision, Gate, Verdict
from signalserve.registry.hand_edits import AcceptancePlan
from signalserve.registry.metadata import ModelMetadata
from signalserve.registry.plans import Promotion, Transition
from signalserve.registry.registry import Registry, open_registry
from signalserve.registry.runs import RunDirectory, new_run
from signalserve.registry.selection import CleanPlan, Selection
from signalserve.registry.signing import Signer, signer_of
from signalserve.registry.store import Store
from signalserve.registry.verify_log import LogReport, verify_log

__all__ = [
    "AcceptancePlan",
    "Artefact",
    "CleanPlan",
    "Committed",
    "Decision",
    "Description",
    "Gate",
    "LoadedModel",
    "LogReport",
    "Looked",
    "ModelMetadata",
    "ModelRegistryEntry",
    "Promotion",
    "Proof",
    "Registry",
    "RunDirectory",
    "Selection",
    "Signer",
    "Status",
    "Store",
    "Transition",
    "Verdict",
    "get_latest_model",
    "get_latest_production_model",
    "init_registry",
    "list_models",
    "load_model_by_id",
    "load_registry",
    "new_run",
    "open_registry",
    "promote_model",
    "register_model",
    "signer_of",
    "validate_registry_entry",
    "verify_log",
]
