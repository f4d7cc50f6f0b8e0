"""An artefact's files are read once an operation, described in one place, and judged by no configuration at hand."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from signalserve.registry import (
    ModelMetadata,
    Selection,
    list_models,
    promote_model,
    register_model,
    validate_registry_entry,
)
from signalserve.registry.errors import ArtefactError, GateRefusedError
from tests.registries import registry_at
from tests.small_models import NAMES, register_copy, sealed_template

_watched: list[tuple[Path, Counter[str]]] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _watched and isinstance(arguments[0], str | bytes | Path):
        path, mode = Path(str(arguments[0])), str(arguments[1] or "r")
        folder, opened = _watched[-1]
        if path.parent == folder and "w" not in mode:
            opened[path.name] += 1


sys.addaudithook(_hook)  # stays for the process, and is idle but in the block below


@contextmanager
def opened_in(folder: Path) -> Iterator[Counter[str]]:
    """How often each file of a folder is opened to be read."""
    counts: Counter[str] = Counter()
    _watched.append((folder, counts))
    try:
        yield counts
    finally:
        _watched.pop()


@pytest.fixture
def template(tmp_path: Path) -> Path:
    return sealed_template(tmp_path / "template")


def sealed_copy(template: Path, base: Path, model_id: str) -> ModelMetadata:
    shutil.copytree(template, base / model_id)
    meta = ModelMetadata(model_id, "BTCUSDT", "15m", "logreg", feature_cols=NAMES)
    meta.write(base / model_id / "meta.json")
    return meta


def test_registering_a_sealed_folder_reads_each_file_once(tmp_path: Path, template: Path) -> None:
    base = tmp_path / "registry"
    meta = sealed_copy(template, base, "m")
    with opened_in(base / "m") as counts:
        register_model(meta, base)
    files = {"manifest.json", "golden.npz", "model.onnx", "model.joblib", "meta.json"}
    assert counts == dict.fromkeys(files, 2)  # once to be read, once for its fsync


def test_a_promote_reads_each_file_once(tmp_path: Path, template: Path) -> None:
    base = tmp_path / "registry"
    register_copy(template, base, "m")
    with opened_in(base / "m") as counts:
        promote_model("m", base_dir=base, gate=registry_at(base).gate)
    files = {"manifest.json", "golden.npz", "model.onnx", "model.joblib"}
    assert counts == dict.fromkeys(files, 1)


def test_a_model_is_loaded_from_the_very_bytes_that_were_checked(tmp_path: Path, template: Path) -> None:
    base = tmp_path / "registry"
    register_copy(template, base, "m")
    with opened_in(base / "m") as counts:
        assert registry_at(base).load("m").meta.model_id == "m"
    assert set(counts.values()) == {1}
    (base / "m" / "model.joblib").write_bytes(b"another")
    with pytest.raises(ArtefactError, match=r"model\.joblib"):
        registry_at(base).load("m")


def test_a_sealed_folder_of_other_files_than_its_manifest_says_is_not_registered(
    tmp_path: Path, template: Path
) -> None:
    base = tmp_path / "registry"
    meta = sealed_copy(template, base, "m")
    (base / "m" / "model.joblib").write_bytes(b"another")
    with pytest.raises(ArtefactError, match=r"model\.joblib"):
        register_model(meta, base)
    assert list_models(base) == []


def test_the_same_promote_meets_the_same_gate_in_every_working_directory(
    tmp_path: Path, template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "registry"
    register_copy(template, base, "m")
    lenient = tmp_path / "elsewhere" / "config"
    lenient.mkdir(parents=True)
    (lenient / "system.yml").write_text("promotion: {gate: none}\n")
    monkeypatch.chdir(lenient.parent)
    monkeypatch.setenv("SIGNALSERVE__PROMOTION__GATE", "none")
    with pytest.raises(GateRefusedError, match="opened without a gate"):
        promote_model("m", base_dir=base)
    assert promote_model("m", base_dir=base, force=True, reason="on my word").status == "production"


def test_a_description_says_digest_engine_problems_and_who_counts(tmp_path: Path, template: Path) -> None:
    base = tmp_path / "registry"
    for name in ("first", "second"):
        register_copy(template, base, name)
    registry = registry_at(base)
    registry.move("first", "production")
    index = base / "registry_index.csv"
    lines = index.read_text().splitlines()
    index.write_text(
        "\n".join(line.replace(",success", ",production") if "second" in line else line for line in lines)
        + "\n"
    )
    (base / "second" / "feature_importances.csv").write_text("feature,importance\na,1.0\n")
    view = registry.view()
    found = dict(
        zip("ab", registry.descriptions(view, view.state.entries.values(), thorough=True), strict=True)
    )
    assert found["a"]
    assert (found["a"].engine, found["a"].digest) == ("onnx", view.state.digests["first"])
    assert found["b"].problems == ("a second production row of BTCUSDT/15m: first counts",)
    (base / "first" / "golden.npz").unlink()
    assert not validate_registry_entry(base, view.state.entries["first"])
    # a listing looks at the manifest alone
    assert next(registry.descriptions(view, [view.state.entries["first"]]))


def test_a_file_that_bears_no_load_and_cannot_be_read_is_a_warning(tmp_path: Path, template: Path) -> None:
    base = tmp_path / "registry"
    meta = sealed_copy(template, base, "m")
    (base / "m" / "feature_importances.csv").write_text("feature,importance\na,1.0\n")
    (base / "m" / "manifest.json").unlink()
    register_model(meta, base)  # sealed anew, with the importances among its files
    (base / "m" / "feature_importances.csv").unlink()
    (base / "m" / "feature_importances.csv").mkdir()
    found = validate_registry_entry(base, registry_at(base).entry("m"))
    assert found
    assert any("feature_importances.csv" in text for text in found.warnings)


def test_what_is_cleaned_away_leaves_its_metadata_whatever_model_that_names(
    tmp_path: Path, template: Path
) -> None:
    base = tmp_path / "registry"
    register_copy(template, base, "m")
    ModelMetadata("other", "BTCUSDT", "15m", "logreg").write(base / "m" / "meta.json")
    registry = registry_at(base)
    registry.clean(Selection(statuses=frozenset({"success"})))
    assert registry.events()[-1].detail["removed"][0]["meta"]["model_id"] == "other"
