"""`manifest.json`: what a run directory holds, each file by its sha256.

1. The artefact's digest is the sha256 of the manifest's own bytes.
2. model.joblib, model.onnx and golden.npz must be what the manifest says, or the model is refused. The other
   files are for people; an edit of those is reported and stops no serving, but nothing is judged by an edited
   meta.json.
3. The column names stand in the manifest too: with other names the same trees give another score. So do the classes,
   and which of them is class 1, and the definition that computed the columns: equal names don't make equal features.
4. Format 1 has no classes and no feature set: of a model that was sealed by it the greater class is class 1, and only
   an unchanged meta.json says its feature set. It is read, never written.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from signalserve.common.files import file_sha256, sha256_hex, write_atomically
from signalserve.predictors.classes import Classes, ClassLabel, is_label, same_class
from signalserve.predictors.contents import MANIFEST_FILE, Contents
from signalserve.predictors.errors import IntegrityError
from signalserve.predictors.schema import schema_hash

if TYPE_CHECKING:
    from signalserve.predictors.compile import CompiledModel

MODEL_FILE, ONNX_FILE, GOLDEN_FILE = "model.joblib", "model.onnx", "golden.npz"
LOAD_BEARING = (MODEL_FILE, ONNX_FILE, GOLDEN_FILE)
FORMAT = 2
_SINCE_2 = frozenset({"classes", "positive_class", "feature_set"})


@dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`.

    `feature_min` and `feature_max` are None where they are unknown. `classes` are the two of a classifier, in the
    order of its columns, and `positive_class` the one whose probability is the score; both are None for a regressor,
    and in format 1. `feature_set` is what meta.json said of it at sealing, as `core@1`; empty where it said nothing,
    and in format 1.
    """

    files: dict[str, str]
    feature_names: list[str]
    schema_hash: str
    engine: str
    engine_reason: str
    kind: str
    accepts_nan: bool
    feature_min: list[float] | None
    feature_max: list[float] | None
    classes: list[ClassLabel] | None = None
    positive_class: ClassLabel | None = None
    feature_set: str = ""
    format: int = FORMAT

    @property
    def column(self) -> int:
        """Which of a classifier's two columns is the score."""
        if self.classes is None or self.positive_class is None:
            return 1
        first, second = self.classes
        return Classes((first, second), self.positive_class).column

    def to_bytes(self) -> bytes:
        """The file's bytes, one spelling a content."""
        return (json.dumps(asdict(self), sort_keys=True, indent=1, ensure_ascii=True) + "\n").encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> Manifest:
        """Read and check.

        Raises:
            IntegrityError: another format, a missing or unknown key, a wrong type, a name that leads elsewhere.
        """
        try:
            values = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise IntegrityError(f"{MANIFEST_FILE} is not JSON: {error}") from error
        if not isinstance(values, dict):
            raise IntegrityError(f"{MANIFEST_FILE} is no JSON object")
        written = values.get("format")
        if isinstance(written, bool) or written not in (1, FORMAT):
            raise IntegrityError(
                f"{MANIFEST_FILE} is of format {written!r}; this version reads formats 1 to {FORMAT}"
            )
        if set(values) != set(cls.__dataclass_fields__) - (_SINCE_2 if written == 1 else set()):
            raise IntegrityError(f"{MANIFEST_FILE} has other keys than format {written}")
        problem = _problem(values)
        if problem is not None:
            raise IntegrityError(f"{MANIFEST_FILE}: {problem}")
        return cls(**values)


def _problem(values: dict[str, Any]) -> str | None:
    files, names = values["files"], values["feature_names"]
    if not isinstance(files, dict) or not all(
        _plain_name(name) and _sha(value) for name, value in files.items()
    ):
        return "files is no mapping of plain file names to sha256"
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        return "feature_names is no list of names"
    if values["schema_hash"] != schema_hash(names):
        return "schema_hash is not that of feature_names"
    if values["engine"] not in ("onnx", "native") or values["kind"] not in ("classifier", "regressor"):
        return "engine or kind is unknown"
    if not isinstance(values["accepts_nan"], bool) or not isinstance(values["engine_reason"], str):
        return "accepts_nan or engine_reason is of the wrong type"
    for bound in ("feature_min", "feature_max"):
        limits = values[bound]
        if limits is not None and not (
            isinstance(limits, list)
            and len(limits) == len(names)
            and all(isinstance(item, int | float) and not isinstance(item, bool) for item in limits)
        ):
            return f"{bound} is no list of one number a feature"
    if values["format"] != 1:
        if not isinstance(values["feature_set"], str):
            return "feature_set is no text"
        if (problem := _classes_problem(values)) is not None:
            return problem
    needed = {MODEL_FILE, GOLDEN_FILE} | ({ONNX_FILE} if values["engine"] == "onnx" else set())
    if not needed <= set(files):
        return f"files lacks {', '.join(sorted(needed - set(files)))}"
    return None


def _classes_problem(values: dict[str, Any]) -> str | None:
    classes, positive = values["classes"], values["positive_class"]
    if values["kind"] == "regressor":
        return "a regressor has no classes" if classes is not None or positive is not None else None
    if not isinstance(classes, list) or len(classes) != 2 or not all(is_label(label) for label in classes):
        return "classes are not two"
    if sum(same_class(label, positive) for label in classes) != 1:
        return "positive_class is not one of the classes"
    return None


def _plain_name(name: object) -> bool:
    return (
        isinstance(name, str)
        and bool(name)
        and name not in (".", "..", MANIFEST_FILE)
        and "/" not in name
        and "\\" not in name
        and "\0" not in name
    )


def _sha(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def write_manifest(
    run_dir: Path, compiled: CompiledModel, feature_names: list[str], feature_set: str = ""
) -> str:
    """Hash every file of the folder, write the manifest last, give its digest."""
    files = {
        path.name: file_sha256(path)
        for path in sorted(run_dir.iterdir())
        if path.is_file() and path.name != MANIFEST_FILE and not path.name.startswith(".")
    }
    manifest = Manifest(
        files=files,
        feature_names=list(feature_names),
        schema_hash=schema_hash(feature_names),
        engine=compiled.engine,
        engine_reason=compiled.engine_reason,
        kind=compiled.kind,
        accepts_nan=compiled.accepts_nan,
        feature_min=None if compiled.feature_min is None else list(compiled.feature_min),
        feature_max=None if compiled.feature_max is None else list(compiled.feature_max),
        classes=None if compiled.classes is None else list(compiled.classes.labels),
        positive_class=None if compiled.classes is None else compiled.classes.positive,
        feature_set=feature_set,
    )
    content = manifest.to_bytes()
    write_atomically(run_dir / MANIFEST_FILE, content)
    return sha256_hex(content)


def read_manifest(folder: Path | Contents) -> tuple[Manifest, str]:
    """The manifest and its digest.

    Raises:
        IntegrityError: it is missing or malformed.
    """
    contents = Contents.of(folder)
    return Manifest.from_bytes(contents.read(MANIFEST_FILE)), contents.sha256(MANIFEST_FILE)


def verify_files(
    folder: Path | Contents, expected_digest: str | None = None, *, load_bearing_only: bool = True
) -> Manifest:
    """Check the manifest's digest and the files' against it; builds nothing from them.

    Raises:
        IntegrityError: it says which file, and what to do.
    """
    contents = Contents.of(folder)
    manifest = expected_manifest(contents, expected_digest)
    for name, digest in sorted(manifest.files.items()):
        if load_bearing_only and name not in LOAD_BEARING:
            continue
        path = contents.folder / name
        if not contents.has(name):
            raise IntegrityError(f"{path} is missing; restore it, or promote another model")
        if contents.sha256(name) != digest:
            raise _changed(path)
    return manifest


def expected_manifest(folder: Path | Contents, expected_digest: str | None) -> Manifest:
    """The manifest, if it is the one that was expected.

    Raises:
        IntegrityError: it is another one, missing or malformed.
    """
    contents = Contents.of(folder)
    manifest, digest = read_manifest(contents)
    if expected_digest is not None and digest != expected_digest:
        raise IntegrityError(
            f"{contents.folder / MANIFEST_FILE} is not the one that was registered (digest {digest[:12]}, "
            f"registered {expected_digest[:12]}); restore the folder, or promote another model"
        )
    return manifest


def changed_files(folder: Path | Contents) -> list[str]:
    """Names of files that are not what the manifest says, missing ones included."""
    contents = Contents.of(folder)
    manifest, _ = read_manifest(contents)
    return [
        name
        for name, digest in sorted(manifest.files.items())
        if not contents.has(name) or contents.sha256(name) != digest
    ]


def read_verified(contents: Contents, name: str, manifest: Manifest) -> bytes:
    """A file's bytes, read once and checked; what is built must be built from these.

    Raises:
        IntegrityError: missing, or not what the manifest says.
    """
    expected = manifest.files.get(name)
    if contents.is_large(name) and contents.sha256(name) != expected:
        raise _changed(contents.folder / name)
    content = contents.read(name)
    if contents.sha256(name) != expected:
        raise _changed(contents.folder / name)
    return content


def _changed(path: Path) -> IntegrityError:
    return IntegrityError(
        f"{path} is not the file that was registered: its sha256 differs; restore it, or promote another model"
    )
