"""A disk of a few megabytes, for tests that fill it or need a mount point."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(at: Path, mebibytes: int) -> Iterator[Path]:
    """A tmpfs on a folder, which is made; skips the test where none may be mounted."""
    at.mkdir(parents=True)
    options = f"size={mebibytes}m,mode=0755"
    try:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(at)],  # noqa: S607 - wherever it is
            capture_output=True,
            text=True,
        )
    except FileNotFoundError:
        pytest.skip("there is no mount")
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted: {mounted.stderr.strip()}")
    try:
        yield at
    finally:
        # lazily, as a test that failed may have left a file open
        subprocess.run(["umount", "--lazy", str(at)], check=True)  # noqa: S607
