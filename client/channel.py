"""How the client reaches the server: addresses, TLS, token, keepalive, balancing, retries, reconnect.

`target` is a gRPC target: `host:50051` and `dns:///host:50051` use every address that the name resolves to,
`ipv4:10.0.0.1:50051,10.0.0.2:50051` names them. Calls go round over all that are reachable.

What is repeated, and why that is safe:

- Predict, PredictBatch and the reads change nothing: repeated on UNAVAILABLE.
- Promote, Rollback and Archive always carry a `request_id`, for which the server gives a second arrival the
  first one's answer: repeated on UNAVAILABLE.
- Streams are not repeated: the caller knows from the sequences what was answered.

Nothing is repeated past the call's deadline. The pauses double and carry gRPC's jitter of 20 %.
"""

import getpass
import json
import os
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import grpc

PREDICTION_SERVICE = "signalserve.v1.PredictionService"
REGISTRY_SERVICE = "signalserve.v1.RegistryService"

MAX_RECEIVE_BYTES = 64 * 1024 * 1024
"""The largest answer taken: eight million scores."""

ACTOR_HEADER = "signalserve-actor"
_PORTS = re.compile(r":(\d+)(?=,|$)")

Metadata: TypeAlias = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Tls:
    """TLS files, PEM.

    `ca`: the authorities to trust; None: the system's. `certificate` and `key`: the client's own, for servers
    that ask for one. `server_name`: the name in the server's certificate, where it is not the target's.
    """

    ca: Path | str | None = None
    certificate: Path | str | None = None
    key: Path | str | None = None
    server_name: str | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files; OSError where one cannot be read, ValueError for a certificate without key."""
        if (self.certificate is None) != (self.key is None):
            raise ValueError("a client certificate and its key go together: give both or none")
        return grpc.ssl_channel_credentials(
            root_certificates=_read(self.ca),
            private_key=_read(self.key),
            certificate_chain=_read(self.certificate),
        )


TlsLike: TypeAlias = Tls | Path | str | bool | None
"""None, False: plaintext; True: TLS with the system's authorities; a path: with that file of authorities."""

Token: TypeAlias = str | Callable[[], str] | None
"""A bearer token, or what returns the present one, asked at every call."""


@dataclass(frozen=True)
class Endpoint:
    """Everything that both clients need to open their channel and to sign their calls."""

    target: str
    options: tuple[tuple[str, Any], ...]
    credentials: grpc.ChannelCredentials | None
    token: Token

    def __repr__(self) -> str:
        return f"Endpoint({self.target!r}, {'tls' if self.credentials else 'plaintext'})"  # never the token

    def metadata(self, *, change: bool = False) -> Metadata:
        """Return the metadata of one call; of a change with the caller's name, for the audit log."""
        token = self.token() if callable(self.token) else self.token
        signed: Metadata = (("authorization", f"Bearer {token.strip()}"),) if token else ()
        return (*signed, (ACTOR_HEADER, caller())) if change else signed


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


def endpoint(target: str, token: Token = None, tls: TlsLike = None) -> Endpoint:
    """Gather how to reach `target`.

    A token goes over plaintext when `tls` is not given: only do that on loopback or in a private network.
    """
    if not target:
        raise ValueError("target is empty; give e.g. 'localhost:50051'")
    for port in _PORTS.findall(target):
        if not 0 < int(port) <= 65535:
            raise ValueError(f"target {target!r}: {port} is no port; they go from 1 to 65535")
    options = channel_options()
    settings = _tls(tls)
    if settings is not None and settings.server_name:
        options += (("grpc.ssl_target_name_override", settings.server_name),)
    return Endpoint(target, options, settings.credentials() if settings is not None else None, token)


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
            # within a prediction's deadline of some hundred milliseconds
            _retried(PREDICTION_SERVICE, ("Predict", "PredictBatch"), 3, "0.02s", "0.1s"),
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
            "retryableStatusCodes": ["UNAVAILABLE"],
        },
    }


def _tls(tls: TlsLike) -> Tls | None:
    if tls is None or tls is False:
        return None
    if tls is True:
        return Tls()
    return tls if isinstance(tls, Tls) else Tls(ca=tls)


def _read(path: Path | str | None) -> bytes | None:
    return None if path is None else Path(path).read_bytes()
