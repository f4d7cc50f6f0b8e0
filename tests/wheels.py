"""Wheels as `make wheel` builds them, from a copy, so that a test leaves nothing behind in the sources."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
_NOT_COPIED = (".*", "tests", "benchmarks", "outputs", "build", "dist", "*.egg-info", "__pycache__")


def build_wheel(folder: Path, project: str = ".") -> Path:
    """Build the wheel of a pyproject.toml's folder, offline."""
    source = folder / "source"
    shutil.copytree(ROOT, source, symlinks=True, ignore=shutil.ignore_patterns(*_NOT_COPIED))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-index"]
    subprocess.run(
        [*command, "--no-deps", "--no-build-isolation", "-w", str(folder), str(source / project)],
        timeout=120,
        check=True,
    )
    (wheel,) = folder.glob("*.whl")
    return wheel
