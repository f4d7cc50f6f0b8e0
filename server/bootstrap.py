"""The composition root: every object of the server is built here and handed what it needs.

The exit stack's order is the drain order, last in, first out: health off and calls ended, then the
watcher, then the worker threads.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import asdict, dataclass

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from signalserve.config.settings import Settings
from signalserve.registry.store import Store
from signalserve.server.guard import CallGuard
from signalserve.server.loader import Loader
from signalserve.server.metrics import Gauges, ServerMetrics, metrics_endpoint
from signalserve.server.servicers.prediction import PredictionServicer
from signalserve.server.servicers.registry import RegistryServicer
from signalserve.server.serving import ServingState
from signalserve.server.watcher import RegistryWatcher
from signalserve.trading.rules import TradingRules
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

_log = structlog.get_logger("server")


class PortTakenError(Exception):
    """The address can't be bound; the text says which and what to do."""


@dataclass(frozen=True)
class RunningServer:
    """A server that takes calls, and the parts that its owner may look at."""

    port: int
    state: ServingState
    watcher: RegistryWatcher
    guard: CallGuard
    metrics_port: int | None = None


@asynccontextmanager
async def running_server(settings: Settings, *, reuse_port: bool = False) -> AsyncIterator[RunningServer]:
    """Serve for the length of the block; leaving it drains.

    On entry the port is bound and calls are answered, while health says NOT_SERVING until every production
    model is loaded and verified.

    Raises:
        PortTakenError: the address can't be bound.
    """
    store = Store(settings.ml.models_dir.resolve())
    loader = Loader(store.base_dir, settings)
    metrics = ServerMetrics()
    state = ServingState(
        settings.server,
        lambda model_id: loader.load_by_id(store.view().state, model_id),
        metrics,
        refuse_stale=settings.ml.stale_models == "refuse",
    )
    watcher = RegistryWatcher(store, loader, state, settings.server.poll_ms / 1000)
    guard = CallGuard(settings.server.max_in_flight, metrics)
    metrics.follow(lambda: Gauges(state.snapshot, watcher.seen_revision, guard.in_flight, len(guard.streams)))
    async with AsyncExitStack() as stack:
        stack.callback(state.close)
        server, port = _build(settings, state, watcher, loader, guard, store, reuse_port=reuse_port)
        checker = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(checker, server)
        await _set_health(checker, health_pb2.HealthCheckResponse.NOT_SERVING)
        await server.start()
        metrics_port = stack.enter_context(_metrics(settings, metrics))
        _log.info("server.listening", address=f"{settings.server.host}:{port}", registry=str(store.base_dir))
        follower = asyncio.create_task(_follow(watcher, state, checker), name="registry-watcher")
        stack.push_async_callback(_cancel, follower)
        stack.push_async_callback(_drain, server, checker, guard, settings.server.drain_seconds)
        yield RunningServer(port, state, watcher, guard, metrics_port)


async def serve(
    settings: Settings,
    *,
    reuse_port: bool = False,
    on_listening: Callable[[int], None] | None = None,
    on_ready: Callable[[int], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain.

    `on_listening` gets the port as soon as it is bound, `on_ready` once every production model is loaded.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with running_server(settings, reuse_port=reuse_port) as server:
        if on_listening is not None:
            on_listening(server.port)
        waiting = asyncio.create_task(_tell_ready(server, on_ready))
        await stop.wait()
        waiting.cancel()
        _log.info("server.draining", seconds=settings.server.drain_seconds)
    _log.info("server.stopped")


def reserve_port(host: str, port: int) -> socket.socket:
    """Bind a port without listening, for workers that share it; hold the socket until they run.

    Raises:
        PortTakenError: the address can't be bound.
    """
    # SO_REUSEPORT alone would let a second server take half of the first one's connections in silence
    _bound(host, port, socket.SO_REUSEADDR).close()
    return _bound(host, port, socket.SO_REUSEPORT)


def _bound(host: str, port: int, option: int) -> socket.socket:
    holder = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        holder.setsockopt(socket.SOL_SOCKET, option, 1)
        holder.bind((host, port))
    except OSError as error:
        holder.close()
        raise _taken(host, port) from error
    return holder


def _build(
    settings: Settings,
    state: ServingState,
    watcher: RegistryWatcher,
    loader: Loader,
    guard: CallGuard,
    store: Store,
    *,
    reuse_port: bool,
) -> tuple[grpc.aio.Server, int]:
    limit = settings.server.max_message_mb * 1024 * 1024
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", limit),
            ("grpc.max_send_message_length", limit),
            ("grpc.so_reuseport", int(reuse_port)),
            # a live engine keeps its stream open between bars: answer its pings instead of dropping it
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
        ],
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        guard.cover(PredictionServicer(state, watcher, guard), _PREDICTION), server
    )
    rules = asdict(TradingRules.of(settings.trading))
    registry_service_pb2_grpc.add_RegistryServiceServicer_to_server(
        guard.cover(
            RegistryServicer(store, state, watcher, loader, settings.promotion, rules),
            _REGISTRY,
        ),
        server,
    )
    reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    if not reuse_port:  # gRPC would print a stack of its own before it refuses
        _bound(settings.server.host, settings.server.port, socket.SO_REUSEADDR).close()
    host = f"[{settings.server.host}]" if ":" in settings.server.host else settings.server.host
    try:
        port = server.add_insecure_port(f"{host}:{settings.server.port}")
    except RuntimeError as error:
        raise _taken(settings.server.host, settings.server.port) from error
    return server, port


@contextmanager
def _metrics(settings: Settings, metrics: ServerMetrics) -> Iterator[int | None]:
    """The metrics endpoint, where one is configured; gives its port."""
    host, port = settings.server.host, settings.server.metrics_port
    if port is None:
        yield None
        return
    with ExitStack() as stack:
        try:
            bound = stack.enter_context(metrics_endpoint(metrics, host, port))
        except OSError as error:
            raise _taken(host, port, "server.metrics_port") from error
        _log.info("metrics.listening", address=f"http://{host}:{bound}/metrics")
        yield bound


def _taken(host: str, port: int, setting: str = "server.port") -> PortTakenError:
    return PortTakenError(
        f"{host}:{port} can't be bound: another program has the port, or the address is not this machine's; "
        f"stop it, or set {setting} (0 takes a free one)"
    )


async def _follow(watcher: RegistryWatcher, state: ServingState, checker: health.aio.HealthServicer) -> None:
    following = asyncio.create_task(watcher.run())
    try:
        while not state.snapshot.complete:
            await watcher.wait_for_change(watcher.version)
        await _set_health(checker, health_pb2.HealthCheckResponse.SERVING)
        _log.info("server.ready", revision=state.snapshot.revision, models=len(state.snapshot.by_key))
        await following
    finally:
        await _cancel(following)


async def _tell_ready(server: RunningServer, on_ready: Callable[[int], None] | None) -> None:
    while not server.state.snapshot.complete:
        await server.watcher.wait_for_change(server.watcher.version)
    if on_ready is not None:
        on_ready(server.port)


async def _set_health(checker: health.aio.HealthServicer, status: int) -> None:
    for service in ("", *SERVICES):
        await checker.set(service, status)


async def _drain(
    server: grpc.aio.Server, checker: health.aio.HealthServicer, guard: CallGuard, seconds: float
) -> None:
    guard.drain()
    await checker.enter_graceful_shutdown()
    # gRPC's own stop would cancel a call that arrives just then; the guard answers it with UNAVAILABLE
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await guard.wait_until_empty()
    # what is open still has had its time, or is a health watch, which would hold the drain up to its end
    await server.stop(_LAST_ANSWERS_SECONDS)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
