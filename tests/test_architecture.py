"""docs/architecture.md names files and what is in them: both must be there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
STEPS = re.findall(r"^\| (\d+) \| `([^`]+)` \| (.+) \|$", TEXT, flags=re.MULTILINE)


def test_each_walk_takes_at_most_ten_files() -> None:
    walks = re.split(r"^## Walk ", TEXT, flags=re.MULTILINE)[1:]
    assert len(walks) == 3
    for walk in walks:
        files = re.findall(r"^\| \d+ \| `([^`]+)`", walk, flags=re.MULTILINE)
        assert 3 <= len(set(files)) <= 10


@pytest.mark.parametrize(("file", "what"), [(file, what) for _, file, what in STEPS])
def test_each_step_is_where_the_walk_says(file: str, what: str) -> None:
    source = (ROOT / file).read_text(encoding="utf-8")
    for name in re.findall(r"`([A-Za-z_.]+)`", what.partition(":")[0]):
        for part in name.split("."):
            assert re.search(rf"(class|def) {part}\b", source), f"{file} has no {part}"


def test_every_file_and_folder_that_the_page_names_is_there() -> None:
    for name in re.findall(r"`((?:[a-z_]+/)+(?:[a-z_]+\.py)?)`", TEXT):
        assert (ROOT / name).exists(), name


def test_the_package_links_to_every_folder_of_code() -> None:
    links = {path.name for path in (ROOT / "signalserve").iterdir() if path.is_symlink()}
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {
        "signalserve",
        "tests",
        "benchmarks",
    }
    assert links == folders
    for name in links:
        target = (ROOT / "signalserve" / name).readlink()
        assert not target.is_absolute()
