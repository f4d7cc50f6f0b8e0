"""Where a model comes from: the code and the libraries that made it."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from signalserve import __version__

_LIBRARIES = (
    "numpy",
    "pandas",
    "scikit-learn",
    "xgboost",
    "onnx",
    "skl2onnx",
    "onnxmltools",
    "onnxruntime",
    "TA-Lib",
    "joblib",
)
_SOURCE = Path(__file__).resolve().parents[1]


@cache
def library_versions() -> dict[str, str | None]:
    """The libraries whose versions change a fit, or its compiled form; None for one that is not installed."""
    return {name: _version(name) for name in _LIBRARIES}


@cache
def code_version() -> dict[str, Any]:
    """`signalserve`: its version; `commit`: the source tree's, None where it is no git checkout.

    `modified` says whether tracked files differ from that commit, None where that is not known.
    """
    commit = _git("rev-parse", "HEAD") if (_SOURCE / ".git").exists() else None
    changes = None if commit is None else _git("status", "--porcelain", "--untracked-files=no")
    return {
        "signalserve": __version__,
        "commit": commit,
        "modified": None if changes is None else bool(changes),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    git = shutil.which("git")
    if git is None:
        return None
    # a look must not take the lock of the index
    command = [git, "--no-optional-locks", "-C", str(_SOURCE), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603 - no input
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
