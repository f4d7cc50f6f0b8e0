"""The gRPC server: both services behind the guard, health and reflection.

Health is NOT_SERVING until `ready`, and off again at once when the drain begins.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from signalserve.server.guard import CallGuard
from signalserve.server.wire.handlers import guarded
from signalserve.server.wire.prediction_service import PredictionService
from signalserve.server.wire.registry_service import RegistryService
from signalserve.v1 import (
    prediction_service_pb2,
    prediction_service_pb2_grpc,
    registry_service_pb2,
    registry_service_pb2_grpc,
)

_PREDICTION = prediction_service_pb2.DESCRIPTOR.services_by_name["PredictionService"]
_REGISTRY = registry_service_pb2.DESCRIPTOR.services_by_name["RegistryService"]
SERVICES = (_PREDICTION.full_name, _REGISTRY.full_name)

_LAST_ANSWERS_SECONDS = 0.25


class GrpcServer:
    """What carries the two services; `bind`, `start`, `ready`, `drain`, in this order."""

    def __init__(
        self,
        prediction: PredictionService,
        registry: RegistryService,
        guard: CallGuard,
        *,
        max_message_bytes: int,
        reuse_port: bool,
    ) -> None:
        self._guard = guard
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", max_message_bytes),
                ("grpc.max_send_message_length", max_message_bytes),
                ("grpc.so_reuseport", int(reuse_port)),
                # a live engine keeps its stream open between bars: answer its pings instead of dropping it
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
            ],
        )
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            guarded(prediction, _PREDICTION, guard), self._server
        )
        registry_service_pb2_grpc.add_RegistryServiceServicer_to_server(
            guarded(registry, _REGISTRY, guard), self._server
        )
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(
            (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server
        )

    def bind(self, host: str, port: int) -> int:
        """Take the port; gives its number.

        Raises:
            RuntimeError: the address can't be bound.
        """
        return self._server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")

    async def start(self) -> None:
        """Answer calls; health says NOT_SERVING."""
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        await self._server.start()

    async def ready(self) -> None:
        """Health says SERVING."""
        await self._set_health(health_pb2.HealthCheckResponse.SERVING)

    async def drain(self, seconds: float) -> None:
        """Refuse new calls, give the open ones so long to end, and stop."""
        self._guard.drain()
        await self._health.enter_graceful_shutdown()
        # gRPC's own stop would cancel a call that arrives just then; the guard answers it with UNAVAILABLE
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._guard.wait_until_empty()
        # what is open still has had its time, or is a health watch, which would hold the drain up to its end
        await self._server.stop(_LAST_ANSWERS_SECONDS)

    async def _set_health(self, status: int) -> None:
        for service in ("", *SERVICES):
            await self._health.set(service, status)
