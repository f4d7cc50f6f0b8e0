"""Which addresses may be served without identity: this machine's own, and no other."""

from __future__ import annotations

import ipaddress

from signalserve.access.errors import AccessSetupError


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0"), is_loopback("")
    (True, True, False, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_exposure(host: str, *, tls: bool, tokens: bool, insecure: bool, what: str) -> None:
    """Refuse to serve an address that others reach without TLS and tokens.

    `what` is what would be served and by whom used: "anyone who reaches the port may promote".

    Raises:
        AccessSetupError: it is such an address; the text says what to set.
    """
    if insecure or is_loopback(host) or (tls and tokens):
        return
    missing = []
    if not tls:
        missing.append("security.tls_cert and security.tls_key (PEM files)")
    if not tokens:
        missing.append("security.token_file (`signalserve token create --role ops --name NAME` makes one)")
    raise AccessSetupError(
        f"{host or 'every address'} is reached by other machines, and {what}: set {' and '.join(missing)}; "
        "or serve 127.0.0.1; or, where a proxy of yours asks who calls, set security.insecure: true"
    )
