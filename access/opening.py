"""What a server asks of its callers, put together from files that are followed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from signalserve.access.certificates import ServerTls, TlsPaths, read_tls
from signalserve.access.exposure import check_exposure, is_loopback
from signalserve.access.followed import Followed
from signalserve.access.gatekeeper import Gatekeeper
from signalserve.access.token_file import read_tokens

_INSECURE = "security.insecure is true: {address} is served without {missing}, and {what}"


@dataclass(frozen=True)
class ServerAccess:
    """How a server speaks and whom it lets in; without a gatekeeper it asks nobody who they are.

    `standing` is what to warn of as long as it runs.
    """

    tls: Followed[ServerTls] | None = None
    gatekeeper: Gatekeeper | None = None
    standing: tuple[str, ...] = field(default=())

    @contextmanager
    def following(self, seconds: float) -> Iterator[None]:
        """Look at the files every so many seconds, for the length of the block."""
        ended = threading.Event()
        for followed in (self.tls, self.gatekeeper):  # one does not wait for the other's disk
            if followed is not None:
                followed.follow(seconds, ended)
        try:
            yield
        finally:
            ended.set()

    def warnings(self) -> list[str]:
        """What is not as it should be, in words that say what to do."""
        found = list(self.standing)
        if self.gatekeeper is not None:
            found.append(self.gatekeeper.problem)
        if self.tls is not None:
            found += [self.tls.problem, self.tls.value.warning]
        return [text for text in found if text]


def open_access(
    host: str, *, tls: TlsPaths | None, token_file: Path | None, insecure: bool, what: str
) -> ServerAccess:
    """Read the files and check that the address may be served with them; `what` as for `check_exposure`.

    Raises:
        AccessSetupError: a file can't be used, or the address needs more.
    """
    check_exposure(host, tls=tls is not None, tokens=token_file is not None, insecure=insecure, what=what)
    standing = []
    missing = [name for name, given in (("TLS", tls), ("tokens", token_file)) if given is None]
    if missing and not is_loopback(host):
        text = _INSECURE.format(address=host or "every address", missing=" and ".join(missing), what=what)
        standing.append(text)
    return ServerAccess(
        None if tls is None else Followed(tls.files, lambda: read_tls(tls)),
        None if token_file is None else Gatekeeper(Followed([token_file], lambda: read_tokens(token_file))),
        tuple(standing),
    )
