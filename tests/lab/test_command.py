"""`signalserve lab` as a process: its address, TLS that is replaced while it runs, workers, and its end."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from signalserve.access.token_file import TokenFile
from tests.authority import Authority
from tests.cli.test_commands import signalserve
from tests.server.conftest import ROOT


@contextmanager
def lab_process(
    folder: Path, *arguments: str, **environment: object
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command on a free port; gives the process and its address."""
    sections = {f"SIGNALSERVE__{name}": str(value) for name, value in environment.items()}
    command = [sys.executable, "-m", "signalserve.cli.main", "lab", "--port", "0", *arguments]
    command += ["--registry", str(folder / "registry")]
    with (folder / "lab.log").open("w") as log:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=ROOT,
            env={**os.environ, "SIGNALSERVE__LAB__SESSION_KEY": str(folder / "session.key"), **sections},
        )
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line.startswith("ML Lab on "), (folder / "lab.log").read_text()
            yield process, line.removeprefix("ML Lab on ").strip()
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_it_prints_its_address_answers_there_and_ends_at_sigterm(tmp_path: Path, workers: int) -> None:
    with lab_process(tmp_path, "--workers", str(workers)) as (process, address):
        assert httpx.get(f"{address}/api/ml/models", timeout=60).json()["rows"] == []
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) in {0, -signal.SIGTERM}
    assert not (tmp_path / "registry").exists()


def test_its_certificate_is_replaced_without_a_restart(tmp_path: Path) -> None:
    first, second = Authority("CN=first"), Authority("CN=second")
    certificate, key = first.sign("CN=lab").write(tmp_path, "lab")
    environment = {"SECURITY__TLS_CERT": certificate, "SECURITY__TLS_KEY": key}
    with lab_process(tmp_path, **environment) as (_, address):
        assert address.startswith("https://")
        for authority in (first, second):
            context = ssl.create_default_context(cadata=authority.certificate.decode())
            answered = False
            while not answered:
                try:
                    answered = httpx.get(f"{address}/api/ml/models", verify=context, timeout=60).is_success
                except httpx.ConnectError as error:
                    assert authority is second, error  # it looks once a second
            second.sign("CN=lab").write(tmp_path, "lab")


def test_what_cant_be_opened_is_said_in_words(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert "the registry is a folder" in signalserve("lab", "--registry", str(file), code=2)
    assert "security.token_file" in signalserve("lab", "--host", "0.0.0.0", code=2)
    assert "no token file" in signalserve("lab", "--tokens", str(tmp_path / "none"), code=2)
    with lab_process(tmp_path) as (_, address):
        port = address.rpartition(":")[2]
        assert "can't be bound" in signalserve("lab", "--port", port, code=1)


def test_a_login_over_https_gets_a_secure_cookie_that_every_worker_takes_and_the_log_has_no_secret(
    tmp_path: Path,
) -> None:
    authority = Authority()
    certificate, key = authority.sign("CN=lab").write(tmp_path, "lab")
    _, token = TokenFile(tmp_path / "tokens.json").create("alice", ["ops"])
    environment = {"SECURITY__TLS_CERT": certificate, "SECURITY__TLS_KEY": key}
    tokens = ["--tokens", str(tmp_path / "tokens.json"), "--workers", "2"]
    context = ssl.create_default_context(cadata=authority.certificate.decode())
    with lab_process(tmp_path, *tokens, **environment) as (_, address):
        for shown in ("wrong", token):
            login = httpx.post(
                f"{address}/login",
                data={"token": shown},
                headers={"Origin": address},
                verify=context,
                timeout=60,
            )
        assert login.status_code == 303
        cookie = login.headers["set-cookie"]
        assert cookie.startswith("__Host-signalserve-")
        assert {"HttpOnly", "Secure", "SameSite=lax", "Path=/"} <= set(cookie.split("; "))
        for _ in range(12):  # a connection of its own each: either worker answers
            page = httpx.get(
                address, headers={"Cookie": cookie.partition(";")[0]}, verify=context, timeout=60
            ).text
            assert "alice" in page
            assert token not in page
    log = (tmp_path / "lab.log").read_text()
    assert "access.unauthenticated" in log
    assert token.rpartition("_")[2] not in log


def test_a_login_ends_after_its_hours(tmp_path: Path) -> None:
    _, token = TokenFile(tmp_path / "tokens.json").create("alice", ["read"])
    tokens = ["--tokens", str(tmp_path / "tokens.json")]
    with lab_process(tmp_path, *tokens, LAB__SESSION_HOURS=1 / 3600) as (_, address):
        login = httpx.post(f"{address}/login", data={"token": token}, headers={"Origin": address}, timeout=60)
        cookie = login.headers["set-cookie"].partition(";")[0]
        while "log out" in httpx.get(address, headers={"Cookie": cookie}, timeout=60).text:
            pass
