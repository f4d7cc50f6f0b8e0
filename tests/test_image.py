"""The image's own settings: it starts with its three secrets, and not without; its probe needs none of them."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest

from signalserve.registry import init_registry
from tests.authority import Authority
from tests.cli.test_commands import signalserve
from tests.server.conftest import ROOT, server_process

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
ENVIRONMENT = dict(re.findall(r"(SIGNALSERVE__\w+)=(\S+)", DOCKERFILE))


def test_it_refuses_to_start_without_its_secrets_and_answers_its_probe_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    monkeypatch.chdir(tmp_path)
    environment = ENVIRONMENT | {"SIGNALSERVE__SERVER__HEALTH_PORT": str(unused_tcp_port)}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    signalserve("registry", "init")  # as the image does
    assert "secrets/t" in signalserve("serve", "--port", "0", code=2)
    Authority().sign("CN=server").write(tmp_path / "secrets", "tls")
    assert "secrets/tokens.json" in signalserve("serve", "--port", "0", code=2)
    signalserve("token", "create", "--role", "ops", "--name", "alice")
    (probe,) = re.findall(r"HEALTHCHECK .*CMD \[(.*)\]", DOCKERFILE)
    command = shlex.split(probe.replace(",", " "))
    assert command[0] == "signalserve"
    assert command[-1].endswith(f":{ENVIRONMENT['SIGNALSERVE__SERVER__HEALTH_PORT']}")
    # the process has another working directory
    absolute = {
        name: value.replace("secrets/", f"{tmp_path}/secrets/") for name, value in environment.items()
    }
    init_registry(tmp_path / "registry")
    with server_process(tmp_path / "registry", tmp_path / "log", environment={**os.environ, **absolute}):
        assert "SERVING" in signalserve(*command[1:-1], f"127.0.0.1:{unused_tcp_port}")
