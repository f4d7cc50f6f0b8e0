"""Used as a library, the registry writes to the caller's log handlers and to nothing else, and configures nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.server.conftest import ROOT

# registers a model that is served, one that never will be, and looks past a broken one
WORK = """
import logging, sys
from pathlib import Path
import joblib
import numpy as np
import structlog
from sklearn.linear_model import LogisticRegression
import signalserve.training
from signalserve.registry import ModelMetadata, get_latest_model, promote_model, register_model

{before}
handlers = list(logging.getLogger().handlers)
base = Path(sys.argv[1])
X = np.random.default_rng(0).normal(size=(60, 2))
for name, classes in (("good", (X[:, 0] > 0).astype(int)), ("never", np.arange(60) % 3)):
    (base / name).mkdir(parents=True)
    joblib.dump(LogisticRegression().fit(X, classes), base / name / "model.joblib")
    meta = ModelMetadata(name, "BTCUSDT", "15m", "logreg", feature_cols=["a", "b"])
    meta.write(base / name / "meta.json")
    register_model(meta, base)
(base / "never" / "model.joblib").unlink()
assert get_latest_model(base, "BTCUSDT", "15m").model_id == "good"
assert logging.getLogger().handlers == handlers
assert structlog.is_configured() == {configured}
"""


def run(base: Path, *, before: str = "", configured: bool = False) -> tuple[str, str]:
    """Do the work in a process of its own; gives its stdout and stderr."""
    program = WORK.format(before=before, configured=configured)
    done = subprocess.run(
        [sys.executable, "-c", program, str(base)], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_a_researcher_sees_warnings_on_stderr_and_nothing_on_stdout(tmp_path: Path) -> None:
    out, errors = run(tmp_path / "registry")
    assert out == ""
    first, second = errors.splitlines()
    assert first.startswith("registry.not_servable model_id='never' why=")
    assert "3 classes" in first
    assert second.startswith("registry.entry_passed_over model_id='never'")


@pytest.mark.parametrize("level", ["INFO", "ERROR"])
def test_the_callers_handlers_get_the_lines_by_the_names_and_levels_of_the_parts(
    level: str, tmp_path: Path
) -> None:
    setup = f"logging.basicConfig(level='{level}', format='%(name)s %(levelname)s %(module)s %(message)s')"
    out, errors = run(tmp_path / "registry", before=setup)
    assert out == ""
    lines = [line for line in errors.splitlines() if line.startswith("signalserve.")]
    if level == "ERROR":
        assert lines == []
    else:
        said = [" ".join(line.split()[:4]) for line in lines]
        assert said == [
            "signalserve.registry INFO registration registry.registered",
            "signalserve.registry WARNING registration registry.not_servable",
            "signalserve.registry INFO registration registry.registered",
            "signalserve.registry WARNING queries registry.entry_passed_over",
        ]


def test_a_caller_who_has_configured_structlog_gets_the_lines_there(tmp_path: Path) -> None:
    setup = (
        "structlog.configure(processors=[structlog.processors.add_log_level, structlog.processors.JSONRenderer()],"
        " logger_factory=structlog.PrintLoggerFactory(sys.stderr))"
    )
    out, errors = run(tmp_path / "registry", before=setup, configured=True)
    assert out == ""
    assert '"event": "registry.registered", "level": "info"' in errors
