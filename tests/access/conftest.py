"""Tokens, certificates and a real server that asks for them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from signalserve.access.identity import Role
from signalserve.access.token_file import TokenFile
from signalserve.client import AsyncSignalClient, Tls
from signalserve.registry import Promotion
from signalserve.server.bootstrap import RunningServer, running_server
from tests.authority import Authority
from tests.registries import registry_at
from tests.server.conftest import settings_of
from tests.small_models import register_copy


@pytest.fixture
def base(tmp_path: Path, template: Path) -> Path:
    """BTCUSDT/15m: one in production, two registered."""
    for name in ("one", "two"):
        register_copy(template, tmp_path / "registry", name)
    registry_at(tmp_path / "registry").promote([Promotion("one")])
    return tmp_path / "registry"


@dataclass(frozen=True)
class Secured:
    """A server with TLS and tokens, and one token a role."""

    server: RunningServer
    file: TokenFile
    tokens: dict[Role, str]
    authority: Authority
    folder: Path

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    @property
    def tls(self) -> Tls:
        return Tls(self.folder / "ca.crt")

    def client(self, token: Any, tls: Tls | None = None) -> AsyncSignalClient:
        long = {"deadline_ms": 20_000, "read_deadline_ms": 20_000, "write_deadline_ms": 20_000}
        return AsyncSignalClient(self.target, token=token, tls=tls or self.tls, **long)

    def as_role(self, role: Role) -> AsyncSignalClient:
        return self.client(self.tokens[role])


Securing = Callable[..., AbstractAsyncContextManager[Secured]]


@pytest.fixture
def securing(base: Path, tmp_path: Path) -> Securing:
    """Start a server with TLS and tokens; settings sections as for `serving`."""

    @asynccontextmanager
    async def start(*, mutual: bool = False, **sections: dict[str, Any]) -> AsyncIterator[Secured]:
        folder = tmp_path / "secrets"
        authority = Authority()
        authority.write(folder / "ca.crt")
        certificate, key = authority.sign("CN=server").write(folder, "server")
        file = TokenFile(folder / "tokens.json")
        tokens = {role: file.create(f"the-{role}", [role])[1] for role in Role}
        security = {"token_file": file.path, "tls_cert": certificate, "tls_key": key}
        if mutual:
            security["tls_client_ca"] = folder / "ca.crt"
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(
                running_server(settings_of(base, security=security, **sections))
            )
            while not server.state.snapshot.complete:
                await server.watcher.wait_for_change(server.watcher.version)
            yield Secured(server, file, tokens, authority, folder)

    return start
