"""Sealing a run directory: compile, golden rows, manifest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from signalserve.predictors.compile import CompiledModel, compile_model
from signalserve.predictors.declared import NOTHING_DECLARED, Declared
from signalserve.predictors.kinds import Matrix
from signalserve.predictors.manifest import GOLDEN_FILE, ONNX_FILE, write_manifest


@dataclass(frozen=True)
class Sealed:
    """The digest of a sealed folder, and which engine serves it."""

    digest: str
    engine: str
    engine_reason: str


def seal_run_dir(
    run_dir: Path,
    model: Any,
    feature_names: Sequence[str],
    reference: Matrix | None = None,
    *,
    seed: int = 0,
    declared: Declared = NOTHING_DECLARED,
    feature_set: str = "",
    before_manifest: Callable[[CompiledModel], None] | None = None,
) -> Sealed:
    """Write model.onnx (where it reproduces the golden rows), golden.npz and, last, manifest.json.

    `model.joblib` and whatever else belongs to the run must be there already. `feature_set` says which definition
    computed the features, as `core@1`; empty where nobody said. `before_manifest` may write what depends on the
    outcome, such as the engine in meta.json.

    Raises:
        UnsupportedModelError: the model can't give one score a row; nothing was written.
        DeclarationError: as `compile_model` says; nothing was written.
    """
    compiled = compile_model(model, feature_names, reference, seed=seed, declared=declared)
    if compiled.onnx is not None:
        (run_dir / ONNX_FILE).write_bytes(compiled.onnx)
    else:
        (run_dir / ONNX_FILE).unlink(missing_ok=True)
    (run_dir / GOLDEN_FILE).write_bytes(compiled.golden.to_bytes())
    if before_manifest is not None:
        before_manifest(compiled)
    digest = write_manifest(run_dir, compiled, list(feature_names), feature_set)
    return Sealed(digest, compiled.engine, compiled.engine_reason)
