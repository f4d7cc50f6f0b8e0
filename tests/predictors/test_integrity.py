"""Nothing is opened that is not what was sealed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalserve.predictors.classes import same_class
from signalserve.predictors.errors import (
    GoldenMismatchError,
    IntegrityError,
    PredictorError,
    UnpickleRefusedError,
)
from signalserve.predictors.manifest import Manifest, changed_files, read_manifest, verify_files
from signalserve.predictors.opening import open_predictor
from signalserve.predictors.schema import schema_hash
from signalserve.predictors.seal import seal_run_dir
from tests.predictors.conftest import NAMES, training_data


class Bomb:
    """A pickle that leaves a file behind when it is opened."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return (os.mkdir, (str(self.marker),))


@pytest.fixture
def folder(fitted: dict[str, Any], tmp_path: Path) -> Path:
    """A sealed forest."""
    return make(tmp_path / "rf", fitted["rf"])


def make(path: Path, model: Any) -> Path:
    path.mkdir()
    joblib.dump(model, path / "model.joblib")
    (path / "meta.json").write_text("{}")
    seal_run_dir(path, model, NAMES, training_data()[0])
    return path


def resealed(folder: Path, name: str) -> None:
    """Write into the manifest what a file's digest is now."""
    values = json.loads((folder / "manifest.json").read_text())
    values["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(values))


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz", "model.joblib"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "remove"])
def test_a_damaged_file_is_refused(folder: Path, name: str, damage: str) -> None:
    digest = read_manifest(folder)[1]
    path = folder / name
    content = bytearray(path.read_bytes())
    if damage == "remove":
        path.unlink()
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes({"flip": bytes(content), "truncate": bytes(content[:-7]), "empty": b""}[damage])
    with pytest.raises(IntegrityError, match=name):
        verify_files(folder, digest)
    if name != "model.joblib":
        with pytest.raises(IntegrityError):
            open_predictor(folder, expected_digest=digest)


def test_another_model_in_the_same_folder_is_refused_even_with_a_manifest_of_its_own(
    folder: Path, fitted: dict[str, Any], tmp_path: Path
) -> None:
    digest = read_manifest(folder)[1]
    other = make(tmp_path / "other", fitted["extra_trees"])
    shutil.rmtree(folder)
    other.rename(folder)
    assert open_predictor(folder).engine == "onnx"
    with pytest.raises(IntegrityError, match="not the one that was registered"):
        open_predictor(folder, expected_digest=digest)


def test_reordered_names_in_the_manifest_are_refused(folder: Path) -> None:
    digest = read_manifest(folder)[1]
    values = json.loads((folder / "manifest.json").read_text())
    values["feature_names"].reverse()
    values["schema_hash"] = schema_hash(values["feature_names"])
    (folder / "manifest.json").write_text(json.dumps(values))
    with pytest.raises(IntegrityError):
        open_predictor(folder, expected_digest=digest)
    with pytest.raises(IntegrityError):
        verify_files(folder, digest)


@pytest.mark.parametrize("engine", ["onnx", "native"])
def test_a_pickle_bomb_in_place_of_the_model_is_never_opened(
    engine: str, fitted: dict[str, Any], tmp_path: Path
) -> None:
    folder = make(tmp_path / "m", fitted["rf" if engine == "onnx" else "hist_gb"])
    digest = read_manifest(folder)[1]
    marker = tmp_path / "opened"
    joblib.dump(Bomb(marker), folder / "model.joblib")
    if engine == "onnx":
        assert open_predictor(folder, expected_digest=digest, unpickle="always").engine == "onnx"
    else:
        for policy in ("never", "verified", "always"):
            with pytest.raises(PredictorError):
                open_predictor(folder, expected_digest=digest, unpickle=policy)
    assert not marker.exists()


def test_a_golden_file_that_holds_objects_is_refused(folder: Path) -> None:
    np.savez(folder / "golden.npz", rows=np.array([{}], dtype=object), scores=np.zeros(1))
    resealed(folder, "golden.npz")
    with pytest.raises(IntegrityError, match="golden"):
        open_predictor(folder)


def test_a_model_that_no_longer_gives_its_golden_scores_is_refused(
    folder: Path, fitted: dict[str, Any], tmp_path: Path
) -> None:
    other = make(tmp_path / "other", fitted["extra_trees"])
    shutil.copy(other / "model.onnx", folder / "model.onnx")
    resealed(folder, "model.onnx")
    with pytest.raises(GoldenMismatchError, match="golden rows"):
        open_predictor(folder)


@pytest.mark.parametrize(
    ("policy", "sealed", "opens"),
    [
        ("never", True, False),
        ("verified", True, True),
        ("always", True, True),
        ("never", False, False),
        ("verified", False, False),
        ("always", False, True),
    ],
)
def test_a_native_model_is_unpickled_only_as_the_policy_allows(
    policy: str, sealed: bool, opens: bool, fitted: dict[str, Any], tmp_path: Path
) -> None:
    folder = make(tmp_path / "m", fitted["hist_gb"])
    if not sealed:
        (folder / "manifest.json").unlink()
    if opens:
        assert open_predictor(folder, unpickle=policy, feature_names=NAMES).engine == "native"
    else:
        with pytest.raises(UnpickleRefusedError):
            open_predictor(folder, unpickle=policy, feature_names=NAMES)


def test_an_edited_meta_json_is_reported_and_refuses_nothing(folder: Path) -> None:
    digest = read_manifest(folder)[1]
    (folder / "meta.json").write_text('{"note": "by hand"}')
    assert changed_files(folder) == ["meta.json"]
    assert open_predictor(folder, expected_digest=digest).engine == "onnx"
    with pytest.raises(IntegrityError):
        verify_files(folder, digest, load_bearing_only=False)


@given(st.binary(max_size=200))
def test_garbage_is_no_manifest(content: bytes) -> None:
    with pytest.raises(IntegrityError):
        Manifest.from_bytes(content)


_names = st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=6, unique=True)


_label = st.one_of(st.text(max_size=10), st.booleans(), st.integers(-5, 5), st.floats(-5, 5))
_two = st.lists(_label, min_size=2, max_size=2, unique_by=lambda label: json.dumps(label))
_FILES = {"model.joblib": "0" * 64, "golden.npz": "1" * 64, "model.onnx": "2" * 64}


@given(
    names=_names,
    engine=st.sampled_from(["onnx", "native"]),
    reason=st.text(max_size=30),
    nan=st.booleans(),
    classes=_two.filter(lambda two: not same_class(*two)),
    column=st.integers(0, 1),
    feature_set=st.text(max_size=10),
)
def test_a_manifest_survives_the_round_trip(
    names: list[str], engine: str, reason: str, nan: bool, classes: list[Any], column: int, feature_set: str
) -> None:
    kind, low = "classifier", [0.5] * len(names)
    manifest = Manifest(
        _FILES,
        names,
        schema_hash(names),
        engine,
        reason,
        kind,
        nan,
        low,
        None,
        classes,
        classes[column],
        feature_set,
    )
    again = Manifest.from_bytes(manifest.to_bytes())
    assert again == manifest
    assert again.column == column


@pytest.mark.parametrize(
    ("kind", "classes", "positive"),
    [
        ("classifier", None, None),
        ("classifier", ["a", "b"], None),
        ("classifier", ["a", "b"], "c"),
        ("classifier", ["a", "b", "c"], "a"),
        ("classifier", [1, 1.0], 1),
        ("classifier", [0, 1], True),
        ("classifier", [0, [1]], 0),
        ("regressor", [0, 1], 1),
    ],
)
def test_a_manifest_whose_classes_say_no_class_1_is_refused(kind: str, classes: Any, positive: Any) -> None:
    manifest = Manifest(
        _FILES, ["a"], schema_hash(["a"]), "onnx", "", kind, False, None, None, classes, positive
    )
    with pytest.raises(IntegrityError, match="class"):
        Manifest.from_bytes(manifest.to_bytes())


@pytest.mark.parametrize("feature_set", [None, 3, ["core@3"]])
def test_a_manifest_whose_feature_set_is_no_text_is_refused(feature_set: Any) -> None:
    facts = (schema_hash(["a"]), "onnx", "", "regressor", False, None, None)
    manifest = Manifest(_FILES, ["a"], *facts, feature_set=feature_set)
    with pytest.raises(IntegrityError, match="feature_set"):
        Manifest.from_bytes(manifest.to_bytes())


@given(st.sampled_from(["../x", "/etc/passwd", "a/b", "a\\b", "", ".."]))
def test_a_manifest_that_names_files_elsewhere_is_refused(name: str) -> None:
    files = {"model.joblib": "0" * 64, "golden.npz": "1" * 64, "model.onnx": "2" * 64, name: "3" * 64}
    manifest = Manifest(files, ["a"], schema_hash(["a"]), "onnx", "", "regressor", False, None, None)
    with pytest.raises(IntegrityError, match="files"):
        Manifest.from_bytes(manifest.to_bytes())
