"""A registered model's files: the one place that finds, reads, hashes, proves, opens and describes them.

1. An `Artefact` is one look at one folder, for one operation: each file is read at most once while it lives.
2. The digest that counts is the one that the log has. A folder's own manifest vouches for nothing until its owner
   adopts it, which is when a digest is taken.
3. Nothing is built from a file before it is checked, and nothing is unpickled but by `load`, `open` and the trial of a
   model that is registered or adopted, or promoted though it was found not servable, in a process of its own
   (`predictors/trial.py`).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from signalserve.common.files import is_folder
from signalserve.predictors.contents import MANIFEST_FILE, META_FILE, Contents
from signalserve.predictors.declared import Declared
from signalserve.predictors.errors import PredictorError
from signalserve.predictors.manifest import (
    MODEL_FILE,
    ONNX_FILE,
    Manifest,
    changed_files,
    expected_manifest,
    read_manifest,
    read_verified,
    verify_files,
)
from signalserve.predictors.opening import open_predictor
from signalserve.predictors.predictor import Predictor
from signalserve.registry.description import Description, by_hand_text, second_row_text
from signalserve.registry.entry import ModelRegistryEntry, Status
from signalserve.registry.errors import ArtefactError, no_digest
from signalserve.registry.metadata import ModelMetadata
from signalserve.registry.sealing import as_artefact_error, seal
from signalserve.registry.state import RegistryState

if TYPE_CHECKING:
    from signalserve.predictors.seal import Sealed

IMPORTANCES_FILE = "feature_importances.csv"
PREDICTIONS_FILE = "oos_predictions.csv"


class LoadedModel(NamedTuple):
    """What `load_model_by_id` gives: the fitted model and its metadata."""

    model: Any
    meta: ModelMetadata


@dataclass(frozen=True)
class Proof:
    """What `prove` found: the digest and the manifest."""

    digest: str
    manifest: Manifest

    @property
    def opened(self) -> bool:
        """Whether the model gave its golden scores; a native one was not opened."""
        return self.manifest.engine == "onnx"


class Artefact:
    """One entry's folder, and the digest that the log has of it; empty for none.

    `not_servable` is why it will not be served, where its registration found so.
    """

    def __init__(self, folder: Path, entry: ModelRegistryEntry, digest: str, not_servable: str = "") -> None:
        self.folder = folder
        self.entry = entry
        self.digest = digest
        self.not_servable = not_servable
        self._contents = Contents(folder)

    @property
    def is_sealed(self) -> bool:
        """Whether the folder has a manifest, registered or not."""
        return is_folder(self.folder) and (self.folder / MANIFEST_FILE).exists()

    def has(self, name: str) -> bool:
        """Whether the folder has a file of that name."""
        return self._contents.has(name)

    def meta(self) -> ModelMetadata:
        """The metadata, as the file has it now.

        Raises:
            ArtefactError: missing, broken, or of another model.
        """
        path = self.folder / META_FILE
        with self._as_artefact_error():
            meta = ModelMetadata.parse(self._contents.read(META_FILE), path)
        if meta.model_id != self.entry.model_id:
            raise ArtefactError(f"{path} is of {meta.model_id}, not of {self.entry.model_id}")
        return meta

    def meta_text(self) -> str:
        """meta.json as it stands; what is no UTF-8 in it is replaced.

        Raises:
            ArtefactError: missing.
        """
        with self._as_artefact_error():
            return self._contents.read(META_FILE).decode("utf-8", errors="replace")

    def proven_meta(self) -> ModelMetadata:
        """The metadata as it was when the digest was taken: what a judgement may rest on.

        Raises:
            NotAdoptedError: the log has no digest.
            ArtefactError: missing, broken, of another model, or changed since.
        """
        with self._as_artefact_error():
            manifest = expected_manifest(self._contents, self._needed())
            self._contents.read(META_FILE)  # what is hashed is what `meta` parses
            if manifest.files.get(META_FILE) != self._contents.sha256(META_FILE):
                raise ArtefactError(
                    f"{self.folder / META_FILE} is not the one that was registered, so what it says of the training "
                    "can't be trusted; restore it, or train the model again",
                    metadata={"model_id": self.entry.model_id},
                )
        return self.meta()

    def columns(self) -> list[str]:
        """The names of the model's columns in their order: the sealed ones, else those of meta.json; empty for none.

        Raises:
            ArtefactError: manifest or meta.json is broken, or not what was registered.
        """
        if not self.digest:
            return self.meta().feature_cols or []
        with self._as_artefact_error():
            return expected_manifest(self._contents, self.digest).feature_names

    def feature_set(self) -> str:
        """The feature set that the model was sealed with, as `core@1`; empty where nobody said, or knows any more.

        A manifest of format 1 has none, so it takes an unchanged meta.json; a legacy folder has that alone.
        """
        try:
            if not self.digest:
                return self.meta().feature_set
            with self._as_artefact_error():
                manifest = expected_manifest(self._contents, self.digest)
            return self.proven_meta().feature_set if manifest.format == 1 else manifest.feature_set
        except ArtefactError:
            return ""

    def feature_set_lost(self) -> str:
        """Why nobody knows the feature set any more, empty where nothing was lost."""
        if not self.digest:
            return ""
        try:
            manifest = expected_manifest(self._contents, self.digest)
        except PredictorError:
            return ""  # then it is not served, and that is said
        if manifest.format > 1 or META_FILE not in manifest.files or self._is_as_sealed(manifest, META_FILE):
            return ""
        return (
            f"{META_FILE} was changed since registration, so nobody knows its feature set: requests of any are "
            "answered; restore the file, or train the model again"
        )

    def verify(self) -> Manifest:
        """Check the files, byte by byte, against the digest.

        Raises:
            NotAdoptedError: the log has none.
            ArtefactError: a file is missing or is not what was registered.
        """
        with self._as_artefact_error():
            return verify_files(self._contents, self._needed())

    def prove(self) -> Proof:
        """As `verify`; a model with an ONNX form must also reproduce its golden rows now."""
        digest = self._needed()
        with self._as_artefact_error():
            return self._proof(expected_manifest(self._contents, digest), digest, expected=digest)

    def adopt(self) -> Proof:
        """Take the digest of what lies there, on its owner's word, and prove it.

        A folder with a whole manifest keeps it. Any other has its `model.joblib` opened, compiled and sealed, so
        the owner must trust it.

        Raises:
            ArtefactError: a file is missing, or the model can't be served.
        """
        if not self.is_sealed:
            if not self.has(MODEL_FILE):
                raise ArtefactError(f"{self.folder / MODEL_FILE} is missing")
            self.seal(self.load())
        with self._as_artefact_error():
            manifest, digest = read_manifest(self._contents)
            # no digest is expected: a sealed folder that came from elsewhere is looked at more closely
            return self._proof(manifest, digest, expected=None)

    def open(self, *, unpickle: str) -> Predictor:
        """A proven predictor.

        Raises:
            NotAdoptedError: a legacy folder, and `unpickle` is not `always`.
            NotServableError: likewise, and its registration found that it gives no score.
            ArtefactError: the files are not what was registered, or the model does not give its golden scores.
        """
        if not self.digest and (unpickle != "always" or self.is_sealed):
            # a manifest that nobody registered vouches for nothing
            raise no_digest(self.entry.model_id, self.not_servable)
        with self._as_artefact_error():
            if self.digest:
                predictor = open_predictor(self._contents, expected_digest=self.digest, unpickle=unpickle)
            else:
                meta = self.meta()
                predictor = open_predictor(
                    self._contents,
                    unpickle=unpickle,
                    feature_names=meta.feature_cols,
                    declared=Declared.of(meta.extra),
                )
        return self._described(predictor)

    def load(self) -> Any:
        """The fitted model of `model.joblib`, after its digest was checked where one was taken.

        A legacy folder's is opened on the caller's word.

        Raises:
            ArtefactError: it is not what was registered, or can't be opened here (a missing library, say).
        """
        import joblib  # brings scikit-learn's world, which a server never needs

        path = self.folder / MODEL_FILE
        with self._as_artefact_error():
            if self.digest:
                manifest = expected_manifest(self._contents, self.digest)
                content = read_verified(self._contents, MODEL_FILE, manifest)
                verify_files(self._contents, self.digest)
            else:
                content = self._contents.read(MODEL_FILE)
        try:
            return joblib.load(io.BytesIO(content))
        except Exception as error:
            raise ArtefactError(f"{path} can't be opened: {type(error).__name__}: {error}") from error

    def seal(self, model: Any, reference: np.ndarray | None = None) -> Sealed:
        """As the function `seal`, of this folder and its metadata."""
        sealed = seal(self.folder, self.meta(), model, reference)
        self._contents = Contents(self.folder)  # what was read before is not what lies there now
        return sealed

    def describe(
        self, *, thorough: bool = False, winner: str = "", by_hand: bool = False, refit_of: str = ""
    ) -> Description:
        """Digest, engine, and what is wrong; reads the manifest alone, where `thorough` every file.

        Args:
            thorough: check that the files are there and are what was registered.
            winner: the model that counts, where this one is a second production row of its key.
            by_hand: an edit of the index put it into production.
            refit_of: the model that it is a refit of.
        """
        problems = [second_row_text(self.entry.key, winner)] if winner else []
        warnings = [by_hand_text(self.entry.model_id)] if by_hand else []
        engine = reason = ""
        failed = self.entry.status == Status.FAILED
        if not is_folder(self.folder) and (thorough or not (failed or self.digest)):
            problems.append(f"{self.folder} is missing")
        elif not failed:
            if thorough:
                problems += self._missing()
            try:
                if self.digest:
                    manifest = expected_manifest(self._contents, self.digest)
                    engine, reason = manifest.engine, manifest.engine_reason
                    if thorough:
                        verify_files(self._contents, self.digest)
                        warnings += self._changed()
                elif thorough and not self.not_servable:
                    warnings.append("legacy folder: no digest was taken; it is served once adopted")
            except PredictorError as error:
                problems.append(f"{self.entry.model_id}: {error}")
        if not failed and not self.digest:
            engine = "legacy"
            reason = self.not_servable or "no digest was taken; `signalserve registry adopt` takes one"
        if thorough and self.not_servable:
            warnings.append(f"it will not be served: {self.not_servable}")
        return Description(
            self.digest,
            engine,
            reason,
            tuple(dict.fromkeys(problems)),
            tuple(dict.fromkeys(warnings)),
            self.not_servable,
            by_hand,
            refit_of=refit_of,
        )

    def importances(self) -> list[tuple[str, float]]:
        """Feature importances: the CSV's, else those of meta.json; what can't be read is left out."""
        if not self.has(IMPORTANCES_FILE):
            stated = self.meta().feature_importances or {}
            return [(name, float(value)) for name, value in stated.items() if isinstance(value, int | float)]
        try:
            text = self._contents.read(IMPORTANCES_FILE).decode("utf-8", errors="replace")
        except PredictorError:
            return []
        found: list[tuple[str, float]] = []
        for row in csv.DictReader(io.StringIO(text, newline="")):
            try:
                found.append((row["feature"], float(row["importance"])))
            except (KeyError, TypeError, ValueError):
                continue
        return found

    def _missing(self) -> Iterator[str]:
        if not self.has(MODEL_FILE):
            yield f"{self.folder / MODEL_FILE} is missing"
        try:
            self.meta()
        except ArtefactError as error:
            yield str(error)

    def _changed(self) -> list[str]:
        """Files that stop no model from serving, and are not what was registered."""
        try:
            changed = changed_files(self._contents)
        except PredictorError as error:
            return [str(error)]
        lost = self.feature_set_lost()
        return [
            lost if lost and name == META_FILE else f"{name} was changed since registration"
            for name in changed
        ]

    def _is_as_sealed(self, manifest: Manifest, name: str) -> bool:
        try:
            return self._contents.sha256(name) == manifest.files.get(name)
        except PredictorError:
            return False

    def _proof(self, manifest: Manifest, digest: str, *, expected: str | None) -> Proof:
        proof = Proof(digest, manifest)
        if proof.opened:
            open_predictor(self._contents, expected_digest=expected, unpickle="never")
        verify_files(self._contents, digest)
        return proof

    def _described(self, predictor: Predictor) -> Predictor:
        """A predictor that also knows what the metadata says of it, and how large its files are."""
        if not predictor.feature_set:
            predictor.feature_set = self.feature_set()
        predictor.file_bytes = sum(
            (self.folder / name).stat().st_size for name in (MODEL_FILE, ONNX_FILE) if self.has(name)
        )
        return predictor

    def _needed(self) -> str:
        if not self.digest:
            raise no_digest(self.entry.model_id, self.not_servable)
        return self.digest

    def _as_artefact_error(self) -> AbstractContextManager[None]:
        return as_artefact_error(self.entry.model_id)


class Artefacts:
    """Where the run directories of a registry lie."""

    def __init__(self, base_dir: Path | str) -> None:
        """The folder may be relative: `base_dir` is where it is now, `stated` as it was named."""
        self.stated = Path(base_dir)
        self.base_dir = self.stated.resolve()

    def of(self, entry: ModelRegistryEntry, digest: str, not_servable: str = "") -> Artefact:
        """A fresh look at an entry's files."""
        return Artefact(self.folder(entry), entry, digest, not_servable)

    def seen(self, state: RegistryState, entry: ModelRegistryEntry) -> Artefact:
        """As `of`, with what a state knows of the entry."""
        model_id = entry.model_id
        return self.of(entry, state.digests.get(model_id, ""), state.not_servable.get(model_id, ""))

    def folder(self, entry: ModelRegistryEntry) -> Path:
        """The folder of an entry: `{base_dir}/{model_id}` first, then its `path`, which may be stale.

        Where nothing exists, the answer is the first of them.
        """
        home = self.base_dir / entry.model_id
        if is_folder(home) or not entry.path:
            return home
        stated = Path(entry.path)
        for candidate in (stated, self.base_dir / stated):
            folder = candidate.parent if candidate.name == MODEL_FILE else candidate
            if is_folder(folder):
                return folder
        return home
