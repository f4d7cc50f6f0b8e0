"""From a run directory to a registry entry: where it lies, whether it is whole, what is in it."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from signalserve.common.files import file_sha256
from signalserve.predictors.errors import PredictorError
from signalserve.predictors.manifest import (
    Manifest,
    changed_files,
    expected_manifest,
    read_manifest,
    verify_files,
)
from signalserve.predictors.opening import open_predictor
from signalserve.predictors.predictor import Predictor
from signalserve.registry.entry import ModelRegistryEntry, Status
from signalserve.registry.errors import ArtifactError, NotAdoptedError
from signalserve.registry.metadata import META_FILE, ModelMetadata

if TYPE_CHECKING:
    from signalserve.predictors.seal import Sealed

MODEL_FILE = "model.joblib"
MANIFEST_FILE = "manifest.json"
IMPORTANCES_FILE = "feature_importances.csv"


class LoadedModel(NamedTuple):
    """What `load_model_by_id` gives: the fitted model and its metadata."""

    model: Any
    meta: ModelMetadata


@dataclass(frozen=True)
class Proof:
    """What `prove` found: the manifest, and the predictor that gave the golden scores; None for a native model."""

    manifest: Manifest
    predictor: Predictor | None


@dataclass(frozen=True)
class Validation:
    """Whether an entry's artefacts can be used; false in a condition where they can't.

    `warnings` are what does not stop the model from serving: an importance file that was edited, say.
    """

    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return not self.problems


def run_dir(base_dir: Path | str, entry: ModelRegistryEntry) -> Path:
    """The folder of an entry: `{base_dir}/{model_id}` first, then its `path`, which may be stale.

    Where nothing exists, the answer is the first of them.
    """
    home = Path(base_dir) / entry.model_id
    if home.is_dir() or not entry.path:
        return home
    stated = Path(entry.path)
    for candidate in (stated, Path(base_dir) / stated):
        folder = candidate.parent if candidate.name == MODEL_FILE else candidate
        if folder.is_dir():
            return folder
    return home


def read_meta(folder: Path, entry: ModelRegistryEntry) -> ModelMetadata:
    """The metadata of an entry.

    Raises:
        ArtifactError: missing, broken, or of another model.
    """
    meta = ModelMetadata.read(folder / META_FILE)
    if meta.model_id != entry.model_id:
        raise ArtifactError(f"{folder / META_FILE} is of {meta.model_id}, not of {entry.model_id}")
    return meta


def read_proven_meta(base_dir: Path | str, entry: ModelRegistryEntry, digest: str) -> ModelMetadata:
    """The metadata of an entry, as it was when its digest was taken: what a judgement may rest on.

    Raises:
        NotAdoptedError: the log has no digest.
        ArtifactError: missing, broken, of another model, or changed since.
    """
    if not digest:
        raise NotAdoptedError(entry.model_id)
    folder = run_dir(base_dir, entry)
    with _as_artifact_error(entry.model_id):
        manifest = expected_manifest(folder, digest)
        if META_FILE not in manifest.files or file_sha256(folder / META_FILE) != manifest.files[META_FILE]:
            raise ArtifactError(
                f"{folder / META_FILE} is not the one that was registered, so what it says of the training can't "
                "be trusted; restore it, or train the model again",
                metadata={"model_id": entry.model_id},
            )
    return read_meta(folder, entry)


@contextmanager
def _as_artifact_error(model_id: str) -> Iterator[None]:
    """Give a refusal of the predictors the registry's own type."""
    try:
        yield
    except PredictorError as error:
        raise ArtifactError(f"{model_id}: {error}", metadata={"model_id": model_id}) from error
    except OSError as error:
        raise ArtifactError(f"{model_id}: {error}", metadata={"model_id": model_id}) from error


def verify(base_dir: Path | str, entry: ModelRegistryEntry, digest: str) -> Manifest:
    """Check an entry's files, byte by byte, against the digest that the log has.

    Raises:
        NotAdoptedError: the log has none.
        ArtifactError: a file is missing or is not what was registered.
    """
    if not digest:
        raise NotAdoptedError(entry.model_id)
    with _as_artifact_error(entry.model_id):
        return verify_files(run_dir(base_dir, entry), digest)


def prove(base_dir: Path | str, entry: ModelRegistryEntry, digest: str) -> Proof:
    """As `verify`; a model with an ONNX form must also reproduce its golden rows now."""
    manifest = verify(base_dir, entry, digest)
    if manifest.engine != "onnx":
        return Proof(manifest, None)
    return Proof(manifest, open_entry(base_dir, entry, digest, unpickle="never"))


def open_entry(base_dir: Path | str, entry: ModelRegistryEntry, digest: str, *, unpickle: str) -> Predictor:
    """A proven predictor of an entry.

    Raises:
        NotAdoptedError: a legacy folder, and `unpickle` is not `always`.
        ArtifactError: the files are not what was registered, or the model does not give its golden scores.
    """
    folder = run_dir(base_dir, entry)
    if not digest:
        if unpickle != "always":
            raise NotAdoptedError(entry.model_id)
        if (folder / MANIFEST_FILE).exists():
            raise NotAdoptedError(entry.model_id)  # a manifest that nobody registered vouches for nothing
    with _as_artifact_error(entry.model_id):
        if digest:
            return open_predictor(folder, expected_digest=digest, unpickle=unpickle)
        return open_predictor(folder, unpickle=unpickle, feature_names=read_meta(folder, entry).feature_cols)


def validate_registry_entry(
    base_dir: Path | str, entry: ModelRegistryEntry, digest: str | None = None
) -> Validation:
    """Whether an entry's artefacts are whole: files there, metadata readable, digests as registered.

    `digest` None looks the digest up in the event log. Nothing is unpickled.
    """
    if digest is None:
        from signalserve.registry.store import open_store

        digest = open_store(base_dir).view().state.digests.get(entry.model_id, "")
    folder = run_dir(base_dir, entry)
    if not folder.is_dir():
        return Validation((f"{folder} is missing",))
    if entry.status == Status.FAILED:
        return Validation()
    problems: list[str] = []
    warnings: list[str] = []
    if not (folder / MODEL_FILE).is_file():
        problems.append(f"{folder / MODEL_FILE} is missing")
    try:
        read_meta(folder, entry)
        if digest:
            verify(base_dir, entry, digest)
            warnings += [f"{name} was changed since registration" for name in changed_files(folder)]
        else:
            warnings.append("legacy folder: no digest was taken; it is served once adopted")
    except ArtifactError as error:
        problems.append(str(error))
    return Validation(tuple(problems), tuple(warnings))


def seal(folder: Path, meta: ModelMetadata, model: Any, reference: np.ndarray | None = None) -> Sealed:
    """Compile a model, write its golden rows and manifest, and say in meta.json which engine serves it.

    Raises:
        ArtifactError: the model can't be served at all (more than two classes, say), or its columns are
            not named.
    """
    from signalserve.predictors.seal import seal_run_dir  # brings the converters, which a server never needs

    if not meta.feature_cols:
        raise ArtifactError(f"{meta.model_id}: {META_FILE} has no feature_cols, so nobody knows its columns")
    with _as_artifact_error(meta.model_id):
        return seal_run_dir(
            folder,
            model,
            meta.feature_cols,
            reference,
            before_manifest=lambda compiled: meta.with_extra(
                engine=compiled.engine, engine_reason=compiled.engine_reason
            ).write(folder / META_FILE),
        )


def adopt_folder(folder: Path, meta: ModelMetadata) -> str:
    """Take the digest of a folder that has none in the log, on its owner's word.

    A folder that already has a whole manifest keeps it; any other one has its `model.joblib` opened, so
    the owner must trust it.
    """
    if (folder / MANIFEST_FILE).exists():
        with _as_artifact_error(meta.model_id):
            verify_files(folder)
            return read_manifest(folder)[1]
    path = folder / MODEL_FILE
    if not path.is_file():
        raise ArtifactError(f"{path} is missing")
    return seal(folder, meta, load_pickle(path)).digest


def load_pickle(path: Path) -> Any:
    """Open a joblib file that its owner vouches for.

    Raises:
        ArtifactError: it can't be opened here (a missing library, a truncated file).
    """
    import joblib  # as above

    try:
        return joblib.load(path)
    except Exception as error:
        raise ArtifactError(f"{path} can't be opened: {type(error).__name__}: {error}") from error


def read_importances(folder: Path, meta: ModelMetadata) -> list[tuple[str, float]]:
    """Feature importances: the CSV's, else those of meta.json; what can't be read is left out."""
    path = folder / IMPORTANCES_FILE
    found: list[tuple[str, float]] = []
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream):
                try:
                    found.append((row["feature"], float(row["importance"])))
                except (KeyError, TypeError, ValueError):
                    continue
    elif meta.feature_importances:
        found = [
            (name, float(value))
            for name, value in meta.feature_importances.items()
            if isinstance(value, int | float)
        ]
    return found
