"""gRPC's server credentials from TLS files that are followed."""

from __future__ import annotations

import grpc

from signalserve.access.certificates import ServerTls
from signalserve.access.followed import Followed


def server_credentials(tls: Followed[ServerTls]) -> grpc.ServerCredentials:
    """Credentials that show each new connection the present certificate; open ones go on.

    Where the files name authorities for clients, a client without a certificate of theirs can't connect.
    """
    shown = tls.value

    def present() -> grpc.ServerCertificateConfiguration | None:
        nonlocal shown
        value = tls.value
        if value is shown:
            return None
        shown = value
        return _configuration(value)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(shown),
        present,  # type: ignore[arg-type]  # None is "as before" by grpc's documentation; the stubs don't know it
        require_client_authentication=shown.client_ca is not None,
    )


def _configuration(tls: ServerTls) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(tls.key, tls.certificate)], tls.client_ca)
