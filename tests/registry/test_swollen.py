"""A file that has swollen is refused before it is held in memory, and the error says its size."""

from __future__ import annotations

import io
import os
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from signalserve.predictors.errors import IntegrityError
from signalserve.predictors.golden import GoldenRows
from signalserve.registry import Promotion, init_registry
from signalserve.registry.errors import ArtefactError, StorageError
from signalserve.registry.metadata import ModelMetadata
from tests.registries import registry_at
from tests.small_models import register_copy

MIB = 1 << 20
# sparse: none of them takes room on the disk
OVER_ITS_LIMIT, HASHED = 4096 * MIB, 200 * MIB


@contextmanager
def little_held() -> Iterator[None]:
    """Fail where the block takes as much memory as a swollen file has."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40 * MIB


def promoted(base: Path) -> object:
    return registry_at(base).promote([Promotion("m")], force=True, reason="test")


def opened(base: Path) -> object:
    return registry_at(base).artefact("m").open(unpickle="verified")


def loaded(base: Path) -> object:
    return registry_at(base).load("m")


@pytest.mark.parametrize("use", [promoted, opened])
@pytest.mark.parametrize("name", ["manifest.json", "golden.npz", "model.onnx"])
def test_by_its_size(use: Callable[[Path], object], name: str, template: Path, tmp_path: Path) -> None:
    base = tmp_path / "registry"
    register_copy(template, base, "m")
    os.truncate(base / "m" / name, OVER_ITS_LIMIT)
    with (
        little_held(),
        pytest.raises(ArtefactError, match=rf"{name}: it has 4,294,967,296 bytes, over the limit"),
    ):
        use(base)


@pytest.mark.parametrize(
    ("use", "name"),
    [(promoted, "model.onnx"), (opened, "model.onnx"), (promoted, "model.joblib"), (loaded, "model.joblib")],
)
def test_by_a_hash_taken_in_parts(
    use: Callable[[Path], object], name: str, template: Path, tmp_path: Path
) -> None:
    base = tmp_path / "registry"
    register_copy(template, base, "m")
    os.truncate(base / "m" / name, HASHED)
    with little_held(), pytest.raises(ArtefactError, match=f"{name} is not the file that was registered"):
        use(base)


def test_what_describes_a_model_goes_on_without_it(template: Path, tmp_path: Path) -> None:
    base = tmp_path / "registry"
    register_copy(template, base, "m")
    for name in ("meta.json", "feature_importances.csv"):
        (base / "m" / name).touch()
        os.truncate(base / "m" / name, OVER_ITS_LIMIT)
    artefact = registry_at(base).artefact("m")
    with little_held():
        assert artefact.describe()
        assert artefact.importances() == []
        for read in (artefact.meta, artefact.meta_text, lambda: ModelMetadata.read(base / "m" / "meta.json")):
            with pytest.raises(ArtefactError, match="over the limit of 16,777,216"):
                read()
        # people's files keep no model from serving
        assert opened(base)
        assert promoted(base)
        os.truncate(base / "m" / "manifest.json", OVER_ITS_LIMIT)
        (problem,) = registry_at(base).artefact("m").describe().problems
    assert "4,294,967,296 bytes" in problem


def test_golden_rows_that_unpack_to_more_are_none() -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file, file.open("rows.npy", "w") as rows:
        np.lib.format.write_array(rows, np.zeros((256, 40_000)))
    assert len(packed.getvalue()) < MIB
    with little_held(), pytest.raises(IntegrityError, match=r"unpacks to 81,920,\d+ bytes, over the limit"):
        GoldenRows.from_bytes(packed.getvalue())


def test_the_index_too(tmp_path: Path) -> None:
    base = tmp_path / "registry"
    init_registry(base)
    (base / "registry_index.csv").touch()
    os.truncate(base / "registry_index.csv", OVER_ITS_LIMIT)
    with little_held(), pytest.raises(StorageError, match="over the limit of 67,108,864"):
        registry_at(base).models()
