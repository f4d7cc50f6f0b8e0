"""Models on disk, the index and the lifecycle; knows no gRPC.

>>> from signalserve.registry import list_models, promote_model, register_model
"""

from signalserve.registry.answers import Committed
from signalserve.registry.artifacts import LoadedModel, Validation, validate_registry_entry
from signalserve.registry.entry import ModelRegistryEntry, Status
from signalserve.registry.evidence import Evidence, Measured
from signalserve.registry.gate import Decision
from signalserve.registry.lifecycle import Promotion, Transition
from signalserve.registry.metadata import ModelMetadata
from signalserve.registry.promotion import (
    archive,
    make_candidate,
    promote,
    promote_model,
    record_evaluation,
    rollback,
)
from signalserve.registry.queries import (
    get_latest_model,
    get_latest_production_model,
    list_models,
    load_model_by_id,
    load_registry,
)
from signalserve.registry.registration import adopt, register_model
from signalserve.registry.retention import CleanPlan, Selection, clean, plan_clean
from signalserve.registry.runs import RunDirectory, new_run
from signalserve.registry.store import open_store
from signalserve.registry.verify_log import LogReport, verify_log

__all__ = [
    "CleanPlan",
    "Committed",
    "Decision",
    "Evidence",
    "LoadedModel",
    "LogReport",
    "Measured",
    "ModelMetadata",
    "ModelRegistryEntry",
    "Promotion",
    "RunDirectory",
    "Selection",
    "Status",
    "Transition",
    "Validation",
    "adopt",
    "archive",
    "clean",
    "get_latest_model",
    "get_latest_production_model",
    "list_models",
    "load_model_by_id",
    "load_registry",
    "make_candidate",
    "new_run",
    "open_store",
    "plan_clean",
    "promote",
    "promote_model",
    "record_evaluation",
    "register_model",
    "rollback",
    "validate_registry_entry",
    "verify_log",
]
