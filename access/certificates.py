"""The server's certificate and key, checked before they are used."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from signalserve.access.errors import AccessSetupError
from signalserve.access.followed import LARGEST
from signalserve.common.files import read_regular
from signalserve.common.moments import utc_now

_LEAST_RSA_BITS = 2048
_ENDS_SOON = timedelta(days=14)


@dataclass(frozen=True)
class TlsPaths:
    """PEM files. With `client_ca` a client must show a certificate that one of its authorities has signed."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    @classmethod
    def of(cls, certificate: Path | None, key: Path | None, client_ca: Path | None = None) -> TlsPaths | None:
        """The files of a configuration; None, for plaintext, where it does not name certificate and key."""
        return None if certificate is None or key is None else cls(certificate, key, client_ca)

    @property
    def files(self) -> tuple[Path, ...]:
        """All of them."""
        return tuple(path for path in (self.certificate, self.key, self.client_ca) if path is not None)


@dataclass(frozen=True)
class ServerTls:
    """What a server needs to speak TLS; the contents fit together. `ends`: the certificate's last moment, UTC."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None
    ends: datetime

    @property
    def warning(self) -> str:
        """What to say of a certificate that ends soon, else ""."""
        left = self.ends - utc_now()
        if left > _ENDS_SOON:
            return ""
        when = "has ended" if left <= timedelta(0) else "ends"
        return f"the server's certificate {when} at {self.ends:%Y-%m-%d %H:%M}Z; replace the file, no restart is needed"


def read_tls(paths: TlsPaths) -> ServerTls:
    """Read and check the files.

    Raises:
        AccessSetupError: one can't be read or is no PEM, the key is another certificate's, or it has ended.
    """
    certificate, key = _content(paths.certificate), _content(paths.key)
    try:
        chain = x509.load_pem_x509_certificates(certificate)
    except ValueError as error:
        raise AccessSetupError(f"{paths.certificate} is no PEM certificate") from error
    try:
        private = load_pem_private_key(key, password=None)
    except TypeError as error:
        raise AccessSetupError(f"{paths.key} is encrypted; a server needs one without a password") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise AccessSetupError(f"{paths.key} is no PEM private key") from error
    leaf, now = chain[0], utc_now()
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    try:
        fits = leaf.public_key().public_bytes(*form) == private.public_key().public_bytes(*form)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise AccessSetupError(f"{paths.certificate} has a key that can't be used: {error}") from error
    if not fits:
        raise AccessSetupError(f"{paths.key} is not the key of {paths.certificate}")
    if not _is_usable(private):
        raise AccessSetupError(
            f"{paths.key} is of a kind that not every client takes: make it EC P-256, P-384 or RSA"
        )
    if leaf.not_valid_after_utc <= now:
        raise AccessSetupError(f"{paths.certificate} ended at {leaf.not_valid_after_utc:%Y-%m-%d %H:%M}Z")
    if leaf.not_valid_before_utc > now:
        raise AccessSetupError(f"{paths.certificate} begins at {leaf.not_valid_before_utc:%Y-%m-%d %H:%M}Z")
    client_ca = None if paths.client_ca is None else _content(paths.client_ca)
    if client_ca is not None:
        try:
            x509.load_pem_x509_certificates(client_ca)
        except ValueError as error:
            raise AccessSetupError(f"{paths.client_ca} is no PEM certificate") from error
    return ServerTls(certificate, key, client_ca, leaf.not_valid_after_utc)


def _is_usable(key: object) -> bool:
    """Whether gRPC shows such a key, and its clients take it."""
    if isinstance(key, rsa.RSAPrivateKey):
        return key.key_size >= _LEAST_RSA_BITS
    return isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1)


def _content(path: Path) -> bytes:
    try:
        return read_regular(path, largest=LARGEST)
    except OSError as error:
        raise AccessSetupError(f"{path} can't be read: {error.strerror or error}") from error
