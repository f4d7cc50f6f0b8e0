"""How the client reaches the server: addresses, TLS, token, keepalive, balancing, retries, reconnect.

`target` is a gRPC target: `host:50051` and `dns:///host:50051` use every address that the name resolves to,
`ipv4:10.0.0.1:50051,10.0.0.2:50051` names them. Calls go round over all that are reachable.

What is repeated, and why that is safe:

- Predict, PredictBatch and the reads change nothing: repeated on UNAVAILABLE, and on CANCELLED where it is not the
  caller who cancelled: gRPC ends calls so that reach a server in the moment in which it stops.
- Promote, Rollback and Archive always carry a `request_id`, for which the server gives a second arrival the
  first one's answer: repeated likewise.
- RESOURCE_EXHAUSTED with a RetryInfo did nothing: repeated after the pause that it names.
- A stream is repeated only where it was opened with `reconnect`: otherwise the caller knows from the sequences what
  was answered.

Nothing is repeated past the call's deadline. The pauses double and carry gRPC's jitter of 20 %.
"""

import getpass
import ipaddress
import json
import os
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

from .tls import FollowedTls, TlsLike, tls_of
from .token import Token, token_source

PREDICTION_SERVICE = "signalserve.v1.PredictionService"
REGISTRY_SERVICE = "signalserve.v1.RegistryService"

MAX_RECEIVE_BYTES = 64 * 1024 * 1024
"""The largest answer taken: eight million scores."""

ACTOR_HEADER = "signalserve-actor"
VIA_HEADER = "signalserve-via"
_PORTS = re.compile(r":(\d+)(?=,|$)")
# a name server that the target names may say that anything is here
_SCHEME = re.compile(r"^(ipv4:|ipv6:|dns:(///)?)")

_WITH_PORT = re.compile(r"(\[[^\]]+\]|%5B.+%5D|[^:\[\]]+):\d+", re.IGNORECASE)
_PORTLESS = ("unix:", "unix-abstract:", "vsock:", "xds:", "google-c2p:")
_SCHEMES = ("dns:", "ipv4:", "ipv6:", *_PORTLESS)
_URL = re.compile(r"([A-Za-z][\w+.-]*://)")

Metadata: TypeAlias = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Endpoint:
    """Everything that both clients need to open their channel and to sign their calls."""

    target: str
    options: tuple[tuple[str, Any], ...]
    tls: FollowedTls | None
    token: Callable[[], str] | None
    via: str = ""
    actor: Callable[[], str] | None = None

    def __repr__(self) -> str:
        return f"Endpoint({self.target!r}, {'tls' if self.tls else 'plaintext'})"  # never the token

    def metadata(self, *, change: bool = False) -> Metadata:
        """Return the metadata of one call; of a change with the caller's name, for the audit log."""
        token = (self.token() or "").strip() if self.token else ""
        signed: Metadata = (("authorization", f"Bearer {token}"),) if token else ()
        if not change:
            return signed
        through = ((VIA_HEADER, self.via),) if self.via else ()
        return (*signed, (ACTOR_HEADER, (self.actor and self.actor()) or caller()), *through)


@cache
def caller() -> str:
    """Return `1000(alice)@host` of this process, in ASCII: the user by its id, whatever LOGNAME and the like say."""
    try:
        import pwd  # not everywhere

        user = f"{os.getuid()}({pwd.getpwuid(os.getuid()).pw_name})"
    except KeyError:  # a container's user may have no name
        user = str(os.getuid())
    except ImportError:
        user = getpass.getuser()
    return f"{user}@{platform.node()}".encode("ascii", "replace").decode()


def endpoint(
    target: str,
    token: Token = None,
    tls: TlsLike = None,
    *,
    insecure: bool = False,
    via: str = "",
    actor: Callable[[], str] | None = None,
) -> Endpoint:
    """Gather how to reach `target`.

    `via` is what the calls are made through, `actor` gives the name of who makes them where that is not this
    process's user: both are for the audit log of a server that asks nobody who they are, and unverified there.

    Raises:
        OSError: a file can't be read.
        ValueError: the target is none, a file holds no token or no PEM, or a token would go to another machine
            without TLS and `insecure` does not say that this is meant.
    """
    if not target:
        raise ValueError("target is empty; give e.g. 'localhost:50051'")
    if (found := _URL.match(target)) and not target.startswith(_SCHEMES):
        raise ValueError(
            f"target {target!r}: gRPC knows no {found[1]}; give host and port alone, e.g. 'localhost:50051', and"
            " tls=True for a server that speaks TLS"
        )
    for port in _PORTS.findall(target):
        if not 0 < int(port) <= 65535:
            raise ValueError(_no_port(target, port))
    for address in _addresses(target):
        if not _WITH_PORT.fullmatch(address):
            host, _, port = address.rpartition(":")
            if host and port and (":" not in host or host.endswith("]")):
                raise ValueError(_no_port(target, port))
            given = f"[{address}]" if ":" in host else address.rstrip(":")
            raise ValueError(f"target {target!r}: {address!r} names no port; give e.g. '{given}:50051'")
    options = channel_options()
    files, source, local = tls_of(tls), token_source(token), _is_local(target)
    if files is None or local:
        # http_proxy would have the calls, and the token with them, for another machine to read
        options += (("grpc.enable_http_proxy", 0),)
    if source is not None and files is None and not insecure and not local:
        raise ValueError(
            f"the token would go to {target} without TLS, for everybody on the way to read: give tls, "
            "or insecure=True where something else encrypts"
        )
    if files is not None and files.server_name:
        options += (("grpc.ssl_target_name_override", files.server_name),)
    return Endpoint(target, options, FollowedTls(files) if files is not None else None, source, via, actor)


def _no_port(target: str, port: str) -> str:
    return f"target {target!r}: {port} is no port; they go from 1 to 65535"


def _addresses(target: str) -> list[str]:
    """What gRPC would give port 443 where none is named; nothing for a scheme that has no ports of ours to see."""
    bare = _SCHEME.sub("", target)
    return [] if "//" in bare or bare.startswith(_PORTLESS) else bare.split(",")


def _is_local(target: str) -> bool:
    """Whether every address of the target is this machine's own."""
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    return all(_is_loopback(address) for address in _SCHEME.sub("", target).split(","))


def _is_loopback(address: str) -> bool:
    if address.startswith("["):
        host = address[1:].partition("]")[0]
    else:
        host = address if address.count(":") > 1 else address.partition(":")[0]
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def channel_options() -> tuple[tuple[str, Any], ...]:
    """Return the channel's options, the same for both clients."""
    return (
        ("grpc.service_config", json.dumps(service_config())),
        # the policy above is the client's own; a TXT record of the name must not replace it
        ("grpc.service_config_disable_resolution", 1),
        ("grpc.max_receive_message_length", MAX_RECEIVE_BYTES),
        # an over-long request is for the server to refuse, with its own limit in the message
        ("grpc.max_send_message_length", -1),
        # a request above this is not repeated; the default of 256 KiB is 800 rows of 40 features
        ("grpc.per_rpc_retry_buffer_size", 16 * 1024 * 1024),
        # a server that comes back is found within a quarter of a second
        ("grpc.initial_reconnect_backoff_ms", 50),
        ("grpc.max_reconnect_backoff_ms", 250),
        # in spite of its name the time that one attempt to connect may take, handshake included
        ("grpc.min_reconnect_backoff_ms", 2_000),
        ("grpc.dns_min_time_between_resolutions_ms", 1_000),
        # an engine is silent between two bars: keepalive finds a connection that died meanwhile
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        # each client has its own connections, so that close() closes them
        ("grpc.use_local_subchannel_pool", 1),
    )


def service_config() -> dict[str, Any]:
    """Return the balancing and retry policy in gRPC's service config form."""
    return {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [
            # within a prediction's deadline of some hundred milliseconds, and for longer than the 100 ms after which
            # gRPC makes a connection again that was reset, as by a worker that was killed before it took it up
            _retried(PREDICTION_SERVICE, ("Predict", "PredictBatch"), 5, "0.02s", "0.1s"),
            _retried(PREDICTION_SERVICE, ("GetServingStatus",), 4, "0.05s", "0.5s"),
            _retried(REGISTRY_SERVICE, ("ListModels", "GetModel", "ListEvents"), 4, "0.05s", "0.5s"),
            _retried(REGISTRY_SERVICE, ("Promote", "Rollback", "Archive"), 5, "0.1s", "1s"),
        ],
    }


def _retried(
    service: str, methods: tuple[str, ...], attempts: int, first: str, longest: str
) -> dict[str, Any]:
    return {
        "name": [{"service": service, "method": method} for method in methods],
        "retryPolicy": {
            "maxAttempts": attempts,
            "initialBackoff": first,
            "maxBackoff": longest,
            "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
        },
    }
