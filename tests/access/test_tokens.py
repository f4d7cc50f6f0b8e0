"""The token file: what it holds, what it never holds, and what becomes of a broken one."""

from __future__ import annotations

import json
import os
import stat
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from signalserve.access.attempts import FailedAttempts
from signalserve.access.certificates import TlsPaths, read_tls
from signalserve.access.errors import AccessSetupError, UnauthenticatedError
from signalserve.access.exposure import is_loopback
from signalserve.access.followed import Followed
from signalserve.access.identity import Credential, Role
from signalserve.access.token_file import TokenFile, read_tokens
from signalserve.access.tokens import Entry
from signalserve.client import Tls
from signalserve.client.channel import endpoint
from signalserve.client.tls import FollowedTls
from signalserve.client.token import TokenFile as HeldToken
from signalserve.common.moments import utc_now
from tests.authority import Authority

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,20}", fullmatch=True)
ROLES = st.lists(st.sampled_from(list(Role)), min_size=1, unique=True)


@pytest.fixture
def file(tmp_path: Path) -> TokenFile:
    return TokenFile(tmp_path / "deep" / "tokens.json")


def test_a_token_stands_for_its_name_and_roles_and_the_file_does_not_hold_it(file: TokenFile) -> None:
    entry, token = file.create("alice", ["ops", "read", "ops"])
    identity = read_tokens(file.path).identify(Credential(token))
    assert (identity.name, identity.roles, identity.credential_id) == (
        "alice",
        {Role.OPS, Role.READ},
        entry.id,
    )
    secret = token.split("_", 2)[2]
    assert secret not in file.path.read_text()
    assert len(secret) == 43
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600


def test_two_tokens_of_one_secret_would_have_different_hashes(file: TokenFile) -> None:
    first, second = file.create("a", ["read"])[0], file.create("a", ["read"])[0]
    assert first.salt != second.salt
    assert first.hash != second.hash


def test_a_file_that_is_there_keeps_its_mode(file: TokenFile) -> None:
    file.create("a", ["read"])
    file.path.chmod(0o640)
    file.create("b", ["read"])
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o640


def _create(path: Path, number: int) -> None:
    for step in range(5):
        TokenFile(path).create(f"p{number}-{step}", ["read"])


def test_processes_that_create_at_once_lose_nothing(file: TokenFile) -> None:
    context = get_context("spawn")
    processes = [context.Process(target=_create, args=(file.path, number)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert len(read_tokens(file.path).entries) == 15


def test_revoking_by_name_takes_all_that_it_has_and_keeps_their_entries(file: TokenFile) -> None:
    tokens = [file.create("alice", ["read"])[1] for _ in range(2)]
    other = file.create("bob", ["read"])[1]
    assert len(file.revoke("alice")) == 2
    assert file.revoke("alice") == []
    book = read_tokens(file.path)
    for token in tokens:
        with pytest.raises(UnauthenticatedError, match="revoked"):
            book.identify(Credential(token))
    assert book.identify(Credential(other)).name == "bob"
    assert [entry.state(utc_now()) for entry in book.entries] == ["revoked", "revoked", "active"]


@pytest.mark.parametrize("name", ["", "a b", "local:0(root)", "x" * 65, "a\n", "é", "a(b)", "-a"])
def test_a_name_that_could_pass_for_another_kind_of_actor_is_refused(file: TokenFile, name: str) -> None:
    with pytest.raises(AccessSetupError, match="is no name"):
        file.create(name, ["read"])
    assert not file.path.exists()


def test_what_makes_no_token(file: TokenFile) -> None:
    with pytest.raises(AccessSetupError, match="'root' is no role"):
        file.create("a", ["root"])
    with pytest.raises(AccessSetupError, match="expired"):
        file.create("a", ["read"], expires_at=utc_now() - timedelta(seconds=1))
    with pytest.raises(AccessSetupError, match="is no subject"):
        file.admit_certificate("a", ["read"], "engine")
    with pytest.raises(AccessSetupError, match="there is no token file"):
        file.revoke("a")


@given(
    content=st.binary(max_size=200)
    | st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["format", "tokens", "id", "name", "roles", "salt", "hash", "subject"]),
                inner,
                max_size=6,
            )
        ),
        max_leaves=12,
    ).map(lambda value: json.dumps(value).encode())
)
def test_whatever_the_file_holds_it_is_read_or_refused_in_words(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_bytes(content)
    try:
        read_tokens(path)
    except AccessSetupError as error:
        assert str(path) in str(error)


@given(
    name=NAMES,
    roles=ROLES,
    subject=st.sampled_from(["", "CN=a", "CN=a\\,b,O=desk"]),
    expires=st.none() | st.datetimes().map(lambda moment: moment.replace(microsecond=0)),
)
def test_an_entry_comes_back_from_the_file_as_it_was(
    name: str, roles: list[Role], subject: str, expires: object
) -> None:
    from signalserve.common.moments import in_utc

    proof = {"subject": subject} if subject else {"salt": "ab", "hash": "cd"}
    entry = Entry(
        "01234567",
        name,
        tuple(roles),
        utc_now().replace(microsecond=0),
        expires_at=None if expires is None else in_utc(expires),
        **proof,
    )
    assert Entry.from_dict(json.loads(json.dumps(entry.to_dict()))) == entry


def test_pauses_double_are_bounded_and_forgotten_after_a_quiet_minute() -> None:
    now = 0.0
    attempts = FailedAttempts(clock=lambda: now)
    pauses = [attempts.failed("a", "op", "why") for _ in range(8)]
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0]
    assert attempts.failed("b", "op", "why") == 0.1
    now += 61
    assert attempts.failed("a", "op", "why") == 0.1
    assert attempts.total == 10


def test_many_addresses_are_not_all_remembered() -> None:
    attempts = FailedAttempts(clock=lambda: 0.0)
    for number in range(10_000):
        attempts.failed(str(number), "op", "why")
    assert len(attempts._records) == 4096


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1", True), ("127.8.9.1", True), ("localhost", True), ("::1", True), ("[::1]", True),
        ("0.0.0.0", False), ("::", False), ("", False), ("10.0.0.1", False), ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False), ("::ffff:10.0.0.1", False),
    ],
)  # fmt: skip
def test_only_this_machines_own_addresses_are_loopback(host: str, own: bool) -> None:
    assert is_loopback(host) == own


def test_a_file_that_may_not_be_read_is_named(file: TokenFile) -> None:
    file.create("a", ["read"])
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    file.path.chmod(0)
    with pytest.raises(AccessSetupError, match="can't be read: Permission denied"):
        read_tokens(file.path)


def test_a_certificate_without_a_subject_makes_no_entry_and_the_file_stays_whole(file: TokenFile) -> None:
    file.create("a", ["read"])
    with pytest.raises(AccessSetupError, match="is no subject"):
        file.admit_certificate("spiffe", ["predict"], "")
    assert len(read_tokens(file.path).entries) == 1


def test_a_link_to_the_file_stays_a_link(file: TokenFile, tmp_path: Path) -> None:
    file.create("a", ["read"])
    link = tmp_path / "link.json"
    link.symlink_to(file.path)
    TokenFile(link).revoke("a")
    assert link.is_symlink()
    assert read_tokens(file.path).entries[0].revoked_at is not None


@pytest.mark.parametrize("read", [RecursionError("deep"), ValueError("odd"), AccessSetupError("bad")])
def test_whatever_a_read_meets_the_next_good_file_is_taken(tmp_path: Path, read: Exception) -> None:
    path = tmp_path / "followed"
    path.write_text("one")

    def value() -> str:
        if (text := path.read_text()) == "bad":
            raise read
        return text

    followed = Followed([path], value)
    path.write_text("bad")
    assert not followed.refresh()
    assert "stays in force" in followed.problem
    assert followed.value == "one"
    path.write_text("two")
    assert followed.refresh()
    assert (followed.value, followed.problem) == ("two", "")


@pytest.mark.parametrize("kind", ["secp256k1", "secp521r1", "rsa1024", "ed25519", "future"])
def test_a_certificate_that_clients_could_not_use_is_refused(tmp_path: Path, kind: str) -> None:
    keys: dict[str, Any] = {
        "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()),
        "secp521r1": lambda: ec.generate_private_key(ec.SECP521R1()),
        "rsa1024": lambda: rsa.generate_private_key(65537, 1024),  # noqa: S505 - what is refused
        "ed25519": ed25519.Ed25519PrivateKey.generate,
        "future": lambda: ec.generate_private_key(ec.SECP256R1()),
    }
    pair = Authority().sign("CN=a", key=keys[kind](), begins_in_days=2.0 if kind == "future" else -60.0)
    with pytest.raises(AccessSetupError, match="begins at" if kind == "future" else "not every client takes"):
        read_tls(TlsPaths(*pair.write(tmp_path, "a")))


def test_certificate_files_that_are_half_written_give_no_credentials(tmp_path: Path) -> None:
    authority = Authority()
    certificate, key = authority.sign("CN=a").write(tmp_path, "a")
    whole = Tls(authority.write(tmp_path / "ca.crt"), certificate, key)
    whole.credentials()
    for path in (certificate, key, tmp_path / "ca.crt"):
        content = path.read_bytes()
        for part in (b"", b"\n", content[: len(content) // 2]):
            path.write_bytes(part)
            with pytest.raises(ValueError, match=path.name if not part.strip() else None):
                whole.credentials()
        path.write_bytes(content)


def test_a_client_reads_its_files_again_that_it_could_not_read_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signalserve.client.token._LOOK_SECONDS", 0.0)
    monkeypatch.setattr("signalserve.client.tls._LOOK_SECONDS", 0.0)
    authority = Authority()
    held = tmp_path / "held.token"
    held.write_text("sst_first")
    token = HeldToken(held)
    followed = FollowedTls(
        Tls(authority.write(tmp_path / "ca.crt"), *authority.sign("CN=a").write(tmp_path, "a"))
    )
    before = followed.credentials
    with monkeypatch.context() as patched:

        def out_of_files(path: Path, *rest: Any, **more: Any) -> Any:
            raise OSError(24, "Too many open files", str(path))

        held.write_text("sst_second")
        authority.sign("CN=b").write(tmp_path, "a")
        patched.setattr(Path, "read_text", out_of_files)
        patched.setattr(Path, "read_bytes", out_of_files)
        assert token() == "sst_first"
        assert not followed.renew()
    assert token() == "sst_second"
    assert followed.renew()
    assert followed.credentials is not before


@pytest.mark.parametrize(
    ("target", "local"),
    [
        ("localhost:1", True), ("127.0.0.1:1", True), ("dns:///localhost:1", True), ("[::1]:1", True),
        ("ipv4:127.0.0.1:1,127.0.0.2:1", True), ("unix:/tmp/s", True), ("ipv6:[::1]:1", True),
        ("ipv4:127.0.0.1:1,10.0.0.1:1", False), ("dns://8.8.8.8/localhost:1", False), ("127.999.0.1:1", False),
        ("localhost.evil.example:1", False), ("localhost@evil.example:1", False), ("[::ffff:10.0.0.1]:1", False),
        ("10.0.0.1:1", False), ("models.desk:1", False), ("127.\u0660.0.1:1", False),
    ],
)  # fmt: skip
def test_a_token_goes_to_another_machine_over_tls_alone(target: str, local: bool) -> None:
    if local:
        assert ("grpc.enable_http_proxy", 0) in endpoint(target, "sst_x").options
    else:
        with pytest.raises(ValueError, match="without TLS"):
            endpoint(target, "sst_x")
        endpoint(target, "sst_x", insecure=True)
