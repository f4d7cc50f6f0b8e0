"""Identity from the command line: tokens made, a server that asks for them, and one that refuses to start."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from signalserve.client import SignalClient, Unauthenticated
from signalserve.registry import Promotion
from tests.authority import Authority
from tests.cli.test_commands import signalserve
from tests.registries import registry_at
from tests.server.conftest import server_process
from tests.small_models import register_copy


@pytest.fixture
def base(tmp_path: Path, template: Path) -> Path:
    for name in ("one", "two"):
        register_copy(template, tmp_path / "registry", name)
    registry_at(tmp_path / "registry").promote([Promotion("one")])
    return tmp_path / "registry"


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """A token file, a token of each kind in a file, an authority, and the server's certificate."""
    folder = tmp_path / "secrets"
    authority = Authority()
    authority.write(folder / "ca.crt")
    authority.sign("CN=server").write(folder, "server")
    for name, role in (("alice", "ops"), ("rita", "read")):
        signalserve(
            "token", "create", "--name", name, "--role", role,
            "--token-file", str(folder / "tokens.json"), "--out", str(folder / f"{name}.token"),
        )  # fmt: skip
    return folder


@pytest.fixture
def reach(base: Path, secrets: Path, tmp_path: Path) -> Iterator[list[str]]:
    """Options that reach a server on every address; `--token-file` is left to the test."""
    options = ["--host", "0.0.0.0", "--token-file", str(secrets / "tokens.json")]
    options += ["--tls-cert", str(secrets / "server.crt"), "--tls-key", str(secrets / "server.key")]
    with server_process(base, tmp_path / "log", *options) as (_, target):
        yield ["--target", target.replace("0.0.0.0", "127.0.0.1"), "--tls-ca", str(secrets / "ca.crt")]


def test_each_does_what_its_role_may_and_the_log_has_the_tokens_name(
    reach: list[str], secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "ceo")
    alice = [*reach, "--token-file", str(secrets / "alice.token")]
    rita = [*reach, "--token-file", str(secrets / "rita.token")]
    assert "one" in signalserve("models", *rita)
    assert "asks for ops, admin" in signalserve("promote", "two", "--reason", "r", *rita, code=6)
    signalserve("promote", "two", "--reason", "r", *alice)
    (event,) = json.loads(signalserve("events", "-n", "1", "--json", *rita))
    assert (event["actor"], event["action"]) == ("alice", "promote")
    assert "send a bearer token" in signalserve("models", *reach, code=6)
    assert "SERVING" in signalserve("health", *reach)

    listed = json.loads(signalserve("token", "list", "--json", "--token-file", str(secrets / "tokens.json")))
    assert [(row["name"], row["state"]) for row in listed] == [("alice", "active"), ("rita", "active")]
    signalserve("token", "revoke", "alice", "--token-file", str(secrets / "tokens.json"))
    address, authority = reach[1], reach[3]
    with (
        SignalClient(address, token=secrets / "alice.token", tls=authority) as client,
        pytest.raises(Unauthenticated),
    ):
        while True:  # the server looks at its file now and then
            client.list_models(deadline_ms=20_000)
    assert "was revoked" in signalserve("models", *alice, code=6)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--token-file", "{missing}"], "missing can't be read: No such file"),
        (["--token-file", "{empty}"], "empty holds no token"),
        (["--tls-ca", "{missing}"], "missing can't be read: No such file"),
        (["--tls-ca", "{empty}"], "empty"),
        (["--tls-cert", "{empty}"], "go together"),
        (["--token-file", "{token}", "--target", "10.0.0.1:50051"], "without TLS"),
    ],
)
def test_what_cant_be_used_is_named_before_anything_is_sent(
    tmp_path: Path, options: list[str], says: str
) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "token").write_text("sst_x")
    names = {name: str(tmp_path / name) for name in ("missing", "empty", "token")}
    assert says in signalserve("status", *(option.format(**names) for option in options), code=2)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_another_address_without_tls_and_tokens_is_refused_and_the_text_says_what_to_set(
    base: Path, secrets: Path, host: str
) -> None:
    start = ["serve", "--registry", str(base), "--host", host, "--port", "0"]
    tls = ["--tls-cert", str(secrets / "server.crt"), "--tls-key", str(secrets / "server.key")]
    tokens = ["--token-file", str(secrets / "tokens.json")]
    both = signalserve(*start, code=2)
    assert "security.tls_cert" in both
    assert "security.token_file" in both
    assert "security.token_file" in signalserve(*start, *tls, code=2)
    assert "security.tls_cert" in signalserve(*start, *tokens, code=2)
    assert "security.token_file" in signalserve(*start, "--workers", "2", code=2)


def test_insecure_has_to_be_written_out_and_is_said_by_the_server(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value in ("1", "yes", "on"):
        monkeypatch.setenv("SIGNALSERVE__SECURITY__INSECURE", value)
        assert "security.insecure" in signalserve("serve", "--registry", str(base), code=2)
    monkeypatch.setenv("SIGNALSERVE__SECURITY__INSECURE", "true")
    with server_process(base, tmp_path / "log", "--host", "0.0.0.0") as (_, target):
        shown = signalserve("status", "--target", target.replace("0.0.0.0", "127.0.0.1"))
        assert "ready" in shown
    assert "anyone who reaches it could promote" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("other.key", "is not the key of"),
        ("nowhere.key", "can't be read"),
        ("tokens.json", "is no PEM private key"),
    ],
)
def test_a_server_does_not_start_with_a_certificate_that_it_cant_use(
    base: Path, secrets: Path, name: str, says: str
) -> None:
    Authority().sign("CN=other").write(secrets, "other")
    start = ["serve", "--registry", str(base), "--port", "0", "--tls-cert", str(secrets / "server.crt")]
    assert says in signalserve(*start, "--tls-key", str(secrets / name), code=2)
    Authority().sign("CN=old", days=-1).write(secrets, "old")
    ended = ["--tls-cert", str(secrets / "old.crt"), "--tls-key", str(secrets / "old.key")]
    assert "ended at" in signalserve(*start, *ended, code=2)


def test_a_token_is_printed_once_and_goes_nowhere_else(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    token = signalserve("token", "create", "--name", "a", "--role", "read", "--token-file", str(path)).strip()
    assert token.startswith("sst_")
    assert len(token.split()) == 1
    assert token not in signalserve("token", "list", "--token-file", str(path))
    out = tmp_path / "a.token"
    again = ["token", "create", "--name", "a", "--role", "read", "--token-file", str(path), "--out", str(out)]
    assert signalserve(*again) == ""
    assert out.stat().st_mode & 0o077 == 0
    assert "is there already" in signalserve(*again, code=2)
    assert len(json.loads(signalserve("token", "list", "--json", "--token-file", str(path)))) == 2


def test_the_way_that_was_not_taken_is_named(reach: list[str], secrets: Path) -> None:
    target, token = reach[:2], ["--token-file", str(secrets / "rita.token")]
    assert "--tls-ca" in signalserve("status", *target, code=3)  # plaintext to a server that speaks TLS
    other = Authority().write(secrets / "other.crt")
    assert "certificate" in signalserve("status", *target, *token, "--tls-ca", str(other), code=3)
