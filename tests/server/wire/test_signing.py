"""A server that has the key signs what it commits, and does not start with a key that others may read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from signalserve.registry import verify_log
from signalserve.registry.errors import InvalidArgumentError
from tests.server.wire.conftest import Registry, Server

Serve = Callable[..., Server]


def test_a_promote_through_the_server_is_signed(registry: Registry, serve: Serve, tmp_path: Path) -> None:
    key, public = tmp_path / "signing.pem", tmp_path / "signing.pub"
    made = Ed25519PrivateKey.generate()
    key.write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(made.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    key.chmod(0o644)
    with pytest.raises(InvalidArgumentError, match="others may read it"):
        serve(registry.base, registry={"signing_key": key})
    key.chmod(0o600)
    before = verify_log(registry.base).events
    server = serve(registry.base, registry={"signing_key": key})
    server.client.promote(registry["b"], force=True, reason="signed")
    report = verify_log(registry.base, keys=[public])
    assert (report.ok, report.signed, report.events) == (True, 1, before + 1)
