"""The whole package's wheel, in an environment whose user has packages of the same names as our folders."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.wheels import build_wheel

MINE = ("client", "config", "features")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("whole"))


def test_the_wheel_puts_nothing_but_signalserve_into_an_environment(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"signalserve"}
    for inside in (
        "client/sync.py",
        "v1/rpc_status.py",
        "config/system.yml",
        "py.typed",
        "lab/templates/base.html.j2",
        "lab/static/lab.css",
        "lab/static/lab.js",
        "lab/static/icon.svg",
    ):
        assert f"signalserve/{inside}" in names


def test_the_wheel_works_beside_packages_of_the_same_names(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    for name in MINE:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("whose = 'mine'\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), str(tmp_path / "site")))}

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return done.stdout

    program = """
import json, client, config, features
import signalserve.client, signalserve.config.settings, signalserve.features.pipeline, signalserve.registry
print(json.dumps([client.whose, config.whose, features.whose, signalserve.registry.__file__]))
"""
    said = json.loads(run("-c", program))
    assert said == ["mine", "mine", "mine", str(tmp_path / "site/signalserve/registry/__init__.py")]
    assert "Train a model" in run("-m", "signalserve.cli", "--help")
