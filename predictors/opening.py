"""From a run directory to a predictor: audit, build, prove.

1. Each file is read once; what is built is built from the bytes that were hashed.
2. The ONNX path unpickles nothing. `model.joblib` is opened for a native model alone, after its digest
   matched, and only as the policy allows: `never`, `verified`, or `always` (a folder without a manifest).
3. A predictor is given only after it reproduced every golden row.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from signalserve.predictors.contents import MANIFEST_FILE, Contents
from signalserve.predictors.declared import NOTHING_DECLARED, Declared
from signalserve.predictors.engine import input_dtype, onnx_scorer, open_session, refuse_external_data
from signalserve.predictors.errors import IntegrityError, PredictorError, UnpickleRefusedError
from signalserve.predictors.golden import GoldenRows
from signalserve.predictors.kinds import Kind
from signalserve.predictors.manifest import (
    GOLDEN_FILE,
    MODEL_FILE,
    ONNX_FILE,
    Manifest,
    expected_manifest,
    read_verified,
)
from signalserve.predictors.predictor import Predictor


def open_predictor(
    folder: Path | Contents,
    *,
    expected_digest: str | None = None,
    unpickle: str = "verified",
    feature_names: Sequence[str] | None = None,
    declared: Declared = NOTHING_DECLARED,
) -> Predictor:
    """Open a run directory's model.

    Args:
        folder: the run directory, or a look at one that goes on.
        expected_digest: the artefact digest that the registry has; None trusts the folder's own manifest.
        unpickle: the policy, `never`, `verified` or `always`.
        feature_names: the columns of a legacy folder, which has no manifest to say them, and
        declared: what its owner says of it.

    Raises:
        IntegrityError: a file is not what was sealed.
        UnpickleRefusedError: the model is native, or the folder has no manifest, and the policy forbids it.
        GoldenMismatchError: the model does not give its golden scores here.
        UnsupportedModelError: a legacy model that can't give one score a row.
    """
    contents = Contents.of(folder)
    run_dir = contents.folder
    if expected_digest is None and not (run_dir / MANIFEST_FILE).exists():
        return _open_legacy(contents, unpickle, feature_names, declared)
    manifest = expected_manifest(contents, expected_digest)
    digest = contents.sha256(MANIFEST_FILE)
    golden = GoldenRows.from_bytes(read_verified(contents, GOLDEN_FILE, manifest))
    if manifest.engine == "onnx":
        content = read_verified(contents, ONNX_FILE, manifest)
        if expected_digest is None:
            refuse_external_data(content)
        predictor = _onnx_predictor(content, manifest, digest)
    else:
        if unpickle == "never":
            raise UnpickleRefusedError(
                f"{run_dir.name} has no ONNX form ({manifest.engine_reason}), and security.unpickle is never"
            )
        content = read_verified(contents, MODEL_FILE, manifest)
        predictor = _native_predictor(_unpickle(content, run_dir), manifest, digest)
    if golden.rows.shape[1] != len(manifest.feature_names):
        raise IntegrityError(f"{run_dir / GOLDEN_FILE} is of another width than feature_names")
    golden.check(predictor.predict, predictor.kind)
    return predictor


def _onnx_predictor(content: bytes, manifest: Manifest, digest: str) -> Predictor:
    session = open_session(content)
    kind = cast("Kind", manifest.kind)
    return Predictor(
        onnx_scorer(session, kind, manifest.column),
        manifest.feature_names,
        dtype=input_dtype(session),
        **_facts(manifest, digest),
    )


def _native_predictor(model: Any, manifest: Manifest, digest: str) -> Predictor:
    from signalserve.predictors.native import (
        NativeModel,  # brings scikit-learn and xgboost, which ONNX models do without
        greater_class,
    )

    if manifest.format == 1:
        native = NativeModel(model, manifest.feature_names, greater_class(model))
    else:
        native = NativeModel(model, manifest.feature_names, manifest.positive_class)
    return Predictor(native.scores, manifest.feature_names, dtype=np.float64, **_facts(manifest, digest))


def _facts(manifest: Manifest, digest: str) -> dict[str, Any]:
    return {
        "digest": digest,
        "engine": manifest.engine,
        "engine_reason": manifest.engine_reason,
        "kind": manifest.kind,
        "accepts_nan": manifest.accepts_nan,
        "feature_min": manifest.feature_min,
        "feature_max": manifest.feature_max,
        "feature_set": manifest.feature_set,
    }


def _open_legacy(
    contents: Contents, unpickle: str, feature_names: Sequence[str] | None, declared: Declared
) -> Predictor:
    run_dir = contents.folder
    if unpickle != "always":
        raise UnpickleRefusedError(
            f"{run_dir} has no manifest: adopt it with `signalserve registry adopt {run_dir.name}`, or set "
            "security.unpickle to always"
        )
    if not feature_names:
        raise IntegrityError(f"{run_dir} has no manifest, and its meta.json does not name the columns")
    from signalserve.predictors.native import NativeModel  # as above

    native = NativeModel(
        _unpickle(contents.read(MODEL_FILE), run_dir), feature_names, declared.positive_class
    )
    return Predictor(
        native.scores,
        feature_names,
        dtype=np.float64,
        digest="",
        engine="native",
        engine_reason="legacy folder without a manifest",
        kind=native.kind,
        # nobody knows what it was fitted on
        accepts_nan=bool(declared.accepts_nan) and native.accepts_nan(np.zeros(len(feature_names))),
    )


def _unpickle(content: bytes, run_dir: Path) -> Any:
    import joblib  # as above

    try:
        return joblib.load(io.BytesIO(content))
    except (PredictorError, KeyboardInterrupt):
        raise
    except BaseException as error:  # what is unpickled may raise anything, SystemExit too
        raise IntegrityError(
            f"{run_dir / MODEL_FILE} can't be opened here: {type(error).__name__}: {error}"
        ) from error
