"""TLS files, and credentials made of them again when they change."""

import logging
import ssl
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TypeAlias

import grpc

_LOOK_SECONDS = 1.0

_log = logging.getLogger("signalserve.client")


@dataclass(frozen=True)
class Tls:
    """TLS files, PEM; one that is replaced is taken by new connections within a second or so.

    `ca`: the authorities to trust; None: the system's. `certificate` and `key`: the client's own, for servers
    that ask for one. `server_name`: the name in the server's certificate, where it is not the target's.
    """

    ca: Path | str | None = None
    certificate: Path | str | None = None
    key: Path | str | None = None
    server_name: str | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Read and check the files.

        Raises:
            OSError: one can't be read.
            ValueError: one is no PEM, or certificate and key don't belong together.
        """
        if (self.certificate is None) != (self.key is None):
            raise ValueError("a client certificate and its key go together: give both or none")
        before = self.signature()
        ca, key, certificate = (_read(path) for path in (self.ca, self.key, self.certificate))
        # gRPC checks nothing before its first handshake, then only says that the server is away, or aborts the process
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self.ca is not None:
            _check(self.ca, lambda: context.load_verify_locations(self.ca))
        if self.certificate is not None and self.key is not None:
            own, own_key = self.certificate, self.key
            _check(own, lambda: context.load_cert_chain(own, own_key, password=_no_password))
        if self.signature() != before:  # what was checked is not what was read
            raise ValueError("the TLS files are being replaced")
        return grpc.ssl_channel_credentials(ca, key, certificate)

    def signature(self) -> Hashable:
        """A value that differs when a file was replaced."""
        return tuple(_signature(path) for path in (self.ca, self.certificate, self.key))


TlsLike: TypeAlias = Tls | Path | str | bool | None
"""None, False: plaintext; True: TLS with the system's authorities; a path: with that file of authorities."""


class FollowedTls:
    """Credentials that follow their files; a bad new file keeps the last good ones, and the log says so."""

    def __init__(self, tls: Tls) -> None:
        """Read the files; raises what `Tls.credentials` does."""
        self.tls = tls
        self._signature = tls.signature()
        self._next_look = monotonic() + _LOOK_SECONDS
        self._problem = ""
        self.credentials = tls.credentials()

    @property
    def due(self) -> bool:
        """Whether it is time to look at the files again."""
        return monotonic() >= self._next_look

    def renew(self) -> bool:
        """Look at the files; true where `credentials` are new ones."""
        self._next_look = monotonic() + _LOOK_SECONDS
        signature = self.tls.signature()
        if signature == self._signature:
            return False
        try:
            credentials = self.tls.credentials()
        except (OSError, ValueError) as error:
            # they are tried again at each look: the disk may be what kept us from them, and no change of theirs
            if signature == self.tls.signature() and str(error) != self._problem:  # nobody is replacing them
                _log.warning("TLS files changed and can't be used, the ones before stay in force: %s", error)
            self._problem = str(error)
            return False
        self._signature, self.credentials, self._problem = signature, credentials, ""
        return True


def tls_files(
    ca: Path | None,
    certificate: Path | None,
    key: Path | None,
    server_name: str | None,
    *,
    always: bool = False,
) -> Tls | None:
    """The files of a configuration; None, for plaintext, where it names none and TLS is not asked for `always`."""
    files = Tls(ca, certificate, key, server_name)
    return files if always or files != Tls() else None


def tls_of(tls: TlsLike) -> Tls | None:
    """The files that were meant; None for plaintext."""
    if tls is None or tls is False:
        return None
    if tls is True:
        return Tls()
    return tls if isinstance(tls, Tls) else Tls(ca=tls)


def _check(path: Path | str, load: Callable[[], object]) -> None:
    try:
        load()
    except ssl.SSLError as error:
        raise ValueError(f"{path}: {error.reason or error}") from error


def _no_password() -> str:
    raise ValueError("the key is encrypted; give one without a password")


def _read(path: Path | str | None) -> bytes | None:
    if path is None:
        return None
    content = Path(path).read_bytes()
    if not content.strip():
        raise ValueError(f"{path} is empty")
    return content


def _signature(path: Path | str | None) -> Hashable:
    try:
        found = Path(path).stat() if path is not None else None
    except OSError:
        return None
    return None if found is None else (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)
