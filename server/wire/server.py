"""The gRPC server: both services behind the guard, health and reflection.

Health goes off at once when the drain begins.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from signalserve.access.certificates import ServerTls
from signalserve.access.followed import Followed
from signalserve.access.table import row_of
from signalserve.server.guard import CallGuard
from signalserve.server.snapshot import ServingState
from signalserve.server.wire.credentials import server_credentials
from signalserve.server.wire.doorway import Doorway
from signalserve.server.wire.handlers import admitted, guarded
from signalserve.server.wire.health import Health
from signalserve.server.wire.prediction_service import PredictionService
from signalserve.server.wire.registry_service import RegistryService
from signalserve.v1 import prediction_service_pb2, registry_service_pb2

_PREDICTION = prediction_service_pb2.DESCRIPTOR.services_by_name["PredictionService"]
_REGISTRY = registry_service_pb2.DESCRIPTOR.services_by_name["RegistryService"]
_REFLECTION_INFO = f"/{reflection.SERVICE_NAME}/ServerReflectionInfo"
SERVICES = (_PREDICTION.full_name, _REGISTRY.full_name)

_LAST_ANSWERS_SECONDS = 0.25


class GrpcServer:
    """What carries the two services; `bind`, `start`, `drain`, in this order."""

    def __init__(
        self,
        prediction: PredictionService,
        registry: RegistryService,
        guard: CallGuard,
        state: ServingState,
        trouble: Callable[[], str],
        *,
        max_message_bytes: int,
        max_connection_calls: int,
        keepalive_seconds: float,
        reuse_port: bool,
        takes_certificates: bool = False,
    ) -> None:
        """`takes_certificates`: clients may be known by theirs, and need no token; `trouble` as for `Health`.

        A peer that is silent for `keepalive_seconds` is asked for a sign of life, and has as long to give it.
        """
        self._guard = guard
        self._reuse_port = int(reuse_port)
        self._probed: grpc.aio.Server | None = None
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", max_message_bytes),
                ("grpc.max_send_message_length", max_message_bytes),
                ("grpc.so_reuseport", self._reuse_port),
                # a live engine keeps its stream open between bars: answer its pings instead of dropping it
                ("grpc.keepalive_permit_without_calls", 1),
                # ... and ask for one: the stream of a client that is gone without a word would stay for ever
                ("grpc.keepalive_time_ms", int(keepalive_seconds * 1000)),
                ("grpc.keepalive_timeout_ms", int(keepalive_seconds * 1000)),
                ("grpc.http2.ping_timeout_ms", int(keepalive_seconds * 1000)),  # else a minute
                ("grpc.http2.max_pings_without_data", 0),
                ("grpc.max_concurrent_streams", max_connection_calls),
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
            ],
        )
        handlers: Any = self._server
        if guard.gatekeeper is not None:
            handlers = Doorway(guard, guard.gatekeeper, takes_certificates=takes_certificates)
            self._server.add_generic_rpc_handlers((handlers,))
        handlers.add_generic_rpc_handlers((guarded(prediction, _PREDICTION, guard),))
        handlers.add_generic_rpc_handlers((guarded(registry, _REGISTRY, guard),))
        self.health = Health(SERVICES, state, trouble)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, handlers)
        names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflected = reflection.aio.ReflectionServicer(names)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(
            SimpleNamespace(
                ServerReflectionInfo=admitted(reflected.ServerReflectionInfo, guard, _REFLECTION_INFO)
            ),
            handlers,
        )
        for method in health_pb2.DESCRIPTOR.services_by_name["Health"].methods:
            if row_of(f"/{health.SERVICE_NAME}/{method.name}").roles is not None:
                raise NotImplementedError(f"health's {method.name} is the library's own, and open to anybody")

    def bind(self, host: str, port: int, tls: Followed[ServerTls] | None = None) -> int:
        """Take the port; gives its number.

        Raises:
            RuntimeError: the address can't be bound.
        """
        address = _address(host, port)
        if tls is None:
            return self._server.add_insecure_port(address)
        return self._server.add_secure_port(address, server_credentials(tls))

    async def answer_health(self, host: str, port: int) -> int:
        """Answer health, and nothing else, on a second port without TLS; gives its number.

        Raises:
            RuntimeError: the address can't be bound.
        """
        self._probed = grpc.aio.server(options=[("grpc.so_reuseport", self._reuse_port)])
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._probed)
        bound = self._probed.add_insecure_port(_address(host, port))
        await self._probed.start()
        return bound

    async def start(self) -> None:
        """Answer calls."""
        await self._server.start()

    async def drain(self, seconds: float) -> None:
        """Refuse new calls, give the open ones so long to end, and stop."""
        self._guard.drain()
        await self.health.changed(draining=True)
        # this closes the port and sends GOAWAY now, so that clients go elsewhere before they meet a refusal
        stopping = asyncio.create_task(self._server.stop(seconds + _LAST_ANSWERS_SECONDS))
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._guard.wait_until_empty()
        # what is open still has had its time, or is a health watch, which would hold the drain up to its end
        await self._server.stop(_LAST_ANSWERS_SECONDS)
        await stopping
        if self._probed is not None:
            await self._probed.stop(None)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
