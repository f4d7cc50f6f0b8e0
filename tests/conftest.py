"""What all tests share."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import settings

# most tests move models about that have no evidence; those of the gate say what they want
os.environ.setdefault("SIGNALSERVE__PROMOTION__GATE", "none")
# and made-up bars are of 2024
os.environ.setdefault("SIGNALSERVE__PROMOTION__MAX_DATA_AGE", "null")

# without it gRPC writes lines of its own on the stderr of programs that a test starts, between fork and exec
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

# a run repeats the one before; HYPOTHESIS_PROFILE=explore looks for new cases. No example is timed: machines are busy
settings.register_profile("repeat", derandomize=True, deadline=None)
settings.register_profile("explore", derandomize=False, deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeat"))

# a shell that starts the tests in the background ignores Ctrl-C for them, and every child would inherit that
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _plain_logs() -> Iterator[None]:
    """A command that a test ran in this process has pointed the log at a stream that is closed by now."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sealed model, whose copies tests register; it stays as it is."""
    from tests.small_models import sealed_template  # and with it scikit-learn, which few tests need

    return sealed_template(tmp_path_factory.mktemp("template") / "t")
