"""Who changed something is known by the user id; no variable of the environment can say otherwise."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from signalserve.client.channel import caller
from tests.registries import registry_at
from tests.small_models import register_copy, sealed_template


def test_the_environment_chooses_no_actor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "ceo")
    register_copy(sealed_template(tmp_path / "template"), tmp_path / "registry", "m")
    actor = registry_at(tmp_path / "registry").events()[-1].actor
    assert actor.startswith(f"local:{os.getuid()}")
    caller.cache_clear()
    assert caller().startswith(str(os.getuid()))
    assert "ceo" not in actor + caller()
    caller.cache_clear()
