"""The composition root: every object of the server is built here and handed what it needs.

The only module of the server that reads the configuration. The exit stack's order is the drain order, last in,
first out: health off and calls ended, then the watcher, then the worker threads.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import structlog

from signalserve.access.certificates import ServerTls, TlsPaths
from signalserve.access.errors import AccessSetupError
from signalserve.access.exposure import is_loopback
from signalserve.access.followed import Followed
from signalserve.access.opening import ServerAccess, open_access
from signalserve.common.key import Key
from signalserve.config.logs import configure_logs
from signalserve.config.settings import Settings
from signalserve.judging import PromoteGate
from signalserve.registry import open_registry, signer_of
from signalserve.registry.errors import InvalidArgumentError
from signalserve.server.event_loop import run_loop, settle
from signalserve.server.guard import CallGuard
from signalserve.server.limits import ModelChoice, ScoringLimits
from signalserve.server.loader import Loader
from signalserve.server.loading import Loading
from signalserve.server.metrics import Gauges, ServerMetrics, metrics_endpoint
from signalserve.server.named import NamedModels
from signalserve.server.peers import BEAT_SECONDS, Peers, report_of
from signalserve.server.ports import PortTakenError, check_free, reserved_port
from signalserve.server.registry_calls import RegistryCalls
from signalserve.server.scorer import Scorer
from signalserve.server.snapshot import ServingSnapshot, ServingState
from signalserve.server.threads import Threads, any_hang
from signalserve.server.watcher import RegistryWatcher
from signalserve.server.wire.prediction_service import PredictionService
from signalserve.server.wire.registry_service import RegistryService
from signalserve.server.wire.server import GrpcServer
from signalserve.server.workers import READY, Supervisor

# models that are opened together, since the work is the CPU's; and at most, beside those that hang
_LOADERS, _MOST_LOADERS = 2, 64
# how often a worker that keeps off the port looks whether it may listen
_KEEP_OFF_SECONDS = 0.25
# how long one of several workers waits for the next of its first loads to end before it listens
_LONG_LOAD_SECONDS = 2.0

_log = structlog.get_logger("server")


class Among(NamedTuple):
    """Which of several workers a process is, and its pipe to the one that started them."""

    number: int
    connection: Connection


@dataclass(frozen=True)
class RunningServer:
    """A server that takes calls, and the parts that its owner may look at."""

    port: int
    state: ServingState
    named: NamedModels
    scorer: Scorer
    watcher: RegistryWatcher
    guard: CallGuard
    listening: asyncio.Event
    metrics_port: int | None = None

    async def wait_until(self, holds: Callable[[ServingSnapshot], bool]) -> None:
        """Wait until the snapshot is such."""
        while not holds(self.state.snapshot):
            await self.watcher.wait_for_change(self.watcher.version)


def run_server(settings: Settings, on_ready: Callable[[int], None] | None = None) -> int:
    """Serve in this process, or in `server.workers` of them, until SIGTERM; gives the exit code.

    `on_ready` gets the port once health says SERVING (in every worker).

    Raises:
        PortTakenError: the address can't be bound.
        AccessSetupError: it may not be served like this, or a token file or certificate can't be used.
    """
    _access(settings)  # a worker would refuse too, again and again
    signer_of(settings.registry.signing_key, settings.ml.models_dir)
    options = settings.server
    if options.metrics_port:  # before anybody listens; a worker would find its own taken again and again
        for number in range(options.workers):
            check_free(options.metrics_host, options.metrics_port + number, "server.metrics_port")
    if options.workers == 1:
        run_loop(serve(settings, on_ready=on_ready))
        _leave_what_hangs()
        return 0
    with reserved_port(options.host, options.port) as port:

        def tell_ready() -> None:
            if on_ready is not None:
                on_ready(port)

        run = partial(_run_worker, _with_server(settings, port=port))
        Supervisor(run, options.workers, tell_ready, options.silence_seconds).run()
    return 0


def _run_worker(settings: Settings, number: int, connection: Connection) -> None:
    if settings.server.metrics_port:  # 0 takes a free port in each
        settings = _with_server(settings, metrics_port=settings.server.metrics_port + number)
    configure_logs(settings.logging, worker=number)
    try:
        run_loop(serve(settings, among=Among(number, connection), on_ready=lambda _: connection.send(READY)))
    except AccessSetupError as error:  # files that went bad since the others started
        _log.error("worker.can_not_start", why=error.fact)
        sys.exit(1)
    except (InvalidArgumentError, PortTakenError) as error:  # the key, or the port, since this process looked
        _log.error("worker.can_not_start", why=str(error))
        sys.exit(1)
    _leave_what_hangs()


def _leave_what_hangs() -> None:
    """End now where a thread is still in a load that hangs: a library's code may not outlive the interpreter."""
    if any_hang():
        _log.warning("server.left_what_hangs")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


async def serve(
    settings: Settings, *, among: Among | None = None, on_ready: Callable[[int], None] | None = None
) -> None:
    """Serve until SIGTERM or SIGINT, then drain; `on_ready` gets the port once health says SERVING."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with running_server(settings, among, on_loaded=settle) as server:
        waiting = asyncio.create_task(_tell_ready(server, on_ready))
        await stop.wait()
        waiting.cancel()
        _log.info("server.draining", seconds=settings.server.drain_seconds)
    _log.info("server.stopped")


@asynccontextmanager
async def running_server(
    settings: Settings, among: Among | None = None, *, on_loaded: Callable[[], None] = lambda: None
) -> AsyncIterator[RunningServer]:
    """Serve for the length of the block; leaving it drains.

    On entry the port is bound and calls are answered, while health says NOT_SERVING until the first load of every
    production model has ended; one among several workers listens only then. `on_loaded` is called at that time.

    Raises:
        PortTakenError: the address can't be bound.
        AccessSetupError: it may not be served like this, or a token file or certificate can't be used.
        InvalidArgumentError: the signing key can't be used.
    """
    options = settings.server
    reuse_port = among is not None
    access = _access(settings)
    registry = open_registry(
        settings.ml.models_dir.resolve(),
        gate=PromoteGate.of(settings),
        pins=settings.ml.pinned_ids(),
        signer=signer_of(settings.registry.signing_key, settings.ml.models_dir),
    )
    choice = _model_choice(settings)
    loader = Loader(registry.artefacts, choice, registry.store.check)
    metrics = ServerMetrics()
    state = ServingState()
    named = NamedModels(
        Loading(Threads("model-named", _LOADERS, _MOST_LOADERS), options.load_seconds),
        lambda model_id: loader.open_named(registry.state, model_id),
        options.max_pinned_models,
        int(options.max_pinned_mb * 1024 * 1024),
    )
    watcher = RegistryWatcher(
        registry.store,
        loader,
        Loading(Threads("model-load", _LOADERS, _MOST_LOADERS), options.load_seconds),
        choice,
        state,
        named,
        poll_seconds=options.poll_ms / 1000,
        patience=options.load_seconds,
        strict=options.strict_ready,
        count_swap=metrics.swaps.inc,
        record_edits=lambda: registry.record_edits(via="server"),
    )
    guard = CallGuard(options.max_in_flight, metrics.counts, access.gatekeeper, options.max_streams)
    scorer = Scorer(
        state,
        named,
        _scoring_limits(settings),
        metrics.seconds.observe,
        watcher.wait_for_revision,
        guard.aside,
    )
    metrics.follow(
        lambda: Gauges(
            state.snapshot,
            watcher.seen_revision,
            guard.in_flight,
            len(guard.streams),
            registry_readable=not watcher.trouble,
            index_followed=not watcher.index_asked,
            log_whole=not watcher.log_went_back,
            lock_wait=registry.store.awaited(),
        )
    )
    async with AsyncExitStack() as stack:
        stack.callback(scorer.close)
        stack.callback(named.close)
        peers = None if among is None else Peers(among.number, among.connection, watcher.nudge, watcher.tell)
        if peers is not None:
            stack.callback(peers.close)
        calls = RegistryCalls(registry, state, named, watcher, loader, peers, options.load_seconds)
        stack.callback(calls.close)
        number = 0 if among is None else among.number

        def warnings() -> Sequence[str]:
            others = () if peers is None else peers.warnings()
            return (*access.warnings(), *watcher.warnings(), *scorer.warnings(), *others)

        prediction = PredictionService(scorer, state, watcher, guard, warnings, number)
        stack.callback(prediction.close)
        server = GrpcServer(
            prediction,
            RegistryService(calls),
            guard,
            state,
            lambda: watcher.trouble,
            max_message_bytes=options.max_message_mb * 1024 * 1024,
            # what one connection may have open: all that is admitted, and as many calls again to be refused
            max_connection_calls=options.max_streams + 2 * options.max_in_flight,
            keepalive_seconds=options.keepalive_seconds,
            reuse_port=reuse_port,
            takes_certificates=settings.security.tls_client_ca is not None,
        )

        async def listen() -> int:
            port = _bind(server, options.host, options.port, access.tls, reuse_port=reuse_port)
            await server.start()
            _log.info(
                "server.listening",
                address=f"{options.host}:{port}",
                registry=registry.store.location,
                tls=access.tls is not None,
                tokens=access.gatekeeper is not None,
            )
            return port

        if options.health_port is not None:
            await _answer_health(server, options.host, options.health_port, reuse_port=reuse_port)
        # one of several keeps out of the way until it serves: a client would stick to it, and the others answer
        port = options.port if reuse_port else await listen()
        metrics_port = stack.enter_context(_metrics(metrics, options.metrics_host, options.metrics_port))
        for warning in access.warnings():
            _log.warning("server.access", warning=warning)
        running = RunningServer(port, state, named, scorer, watcher, guard, asyncio.Event(), metrics_port)
        if not reuse_port:
            running.listening.set()
        if peers is not None:
            telling = asyncio.create_task(_tell_peers(watcher, state, peers), name="peers")
            stack.push_async_callback(_cancel, telling)
        for task in (
            asyncio.create_task(watcher.run(), name="registry-watcher"),
            asyncio.create_task(_follow(running, server, peers, listen, on_loaded), name="readiness"),
        ):
            stack.push_async_callback(_cancel, task)
        stack.enter_context(access.following(options.poll_ms / 1000))
        recheck = asyncio.create_task(_recheck(guard, options.poll_ms / 1000), name="access")
        stack.push_async_callback(_cancel, recheck)
        stack.push_async_callback(server.drain, options.drain_seconds)
        yield running


def _access(settings: Settings) -> ServerAccess:
    security = settings.security
    access = open_access(
        settings.server.host,
        tls=TlsPaths.of(security.tls_cert, security.tls_key, security.tls_client_ca),
        token_file=security.token_file,
        insecure=security.insecure,
        what="anyone who reaches it could promote",
    )
    metrics = settings.server
    if metrics.metrics_port is not None and not is_loopback(metrics.metrics_host):
        text = f"server.metrics_host is {metrics.metrics_host}: anyone who reaches it reads the metrics"
        access = replace(access, standing=(*access.standing, text))
    return access


def _scoring_limits(settings: Settings) -> ScoringLimits:
    return ScoringLimits(
        max_rows=settings.server.max_rows,
        max_features=settings.server.max_features,
        max_batch_requests=settings.server.max_batch_requests,
        stale_bar_factor=settings.server.stale_bar_factor,
        refuse_stale=settings.ml.stale_models == "refuse",
    )


def _model_choice(settings: Settings) -> ModelChoice:
    ml = settings.ml
    return ModelChoice(
        for_its_key=None if ml.production_model == "auto" else ml.production_model,
        pins={Key.parse(text): model_id for text, model_id in ml.pins.items()},
        max_age=ml.max_model_age,
        unpickle=settings.security.unpickle,
        hold_hand_edits=settings.promotion.hand_edits == "hold",
    )


def _with_server(settings: Settings, **changes: Any) -> Settings:
    return settings.model_copy(update={"server": settings.server.model_copy(update=changes)})


def _bind(
    server: GrpcServer, host: str, port: int, tls: Followed[ServerTls] | None, *, reuse_port: bool
) -> int:
    if not reuse_port:  # gRPC would print a stack of its own before it refuses
        check_free(host, port)
    try:
        return server.bind(host, port, tls)
    except RuntimeError as error:
        raise PortTakenError(host, port) from error


async def _answer_health(server: GrpcServer, host: str, port: int, *, reuse_port: bool) -> None:
    setting = "server.health_port"
    if not reuse_port:
        check_free(host, port, setting)
    try:
        bound = await server.answer_health(host, port)
    except RuntimeError as error:
        raise PortTakenError(host, port, setting) from error
    _log.info("health.listening", address=f"{host}:{bound}")


@contextmanager
def _metrics(metrics: ServerMetrics, host: str, port: int | None) -> Iterator[int | None]:
    """The metrics endpoint, where one is configured; gives its port."""
    if port is None:
        yield None
        return
    with ExitStack() as stack:
        try:
            bound = stack.enter_context(metrics_endpoint(metrics, host, port))
        except OSError as error:
            raise PortTakenError(host, port, "server.metrics_port") from error
        _log.info("metrics.listening", address=f"http://{host}:{bound}/metrics")
        yield bound


async def _recheck(guard: CallGuard, seconds: float) -> None:
    """End the streams of those who may not call any more."""
    while True:
        await asyncio.sleep(seconds)
        guard.recheck()


async def _follow(
    running: RunningServer,
    server: GrpcServer,
    peers: Peers | None,
    listen: Callable[[], Awaitable[int]],
    on_loaded: Callable[[], None],
) -> None:
    """Listen, where that was put off for others, once what they serve is served here; and keep health true."""
    version = running.watcher.version
    if peers is not None:
        await _first_loads(running)
        await _keep_off(running, peers)
        on_loaded()
        try:
            await listen()
        except PortTakenError as error:
            _log.error("worker.can_not_listen", why=str(error))
            signal.raise_signal(signal.SIGTERM)
            return
        running.listening.set()
        peers.tell_listening()
    said = False
    while True:
        await server.health.changed()
        if running.state.snapshot.ready and not said:
            said = True
            if peers is None:
                on_loaded()
            _tell_snapshot(running.state.snapshot)
        version = await running.watcher.wait_for_change(version)


async def _first_loads(running: RunningServer) -> None:
    """Wait until every first load has ended, or what is left of them takes long and something is served already."""
    version = running.watcher.version
    while not running.state.snapshot.started:
        try:
            async with asyncio.timeout(_LONG_LOAD_SECONDS):
                version = await running.watcher.wait_for_change(version)
        except TimeoutError:
            if running.state.snapshot.by_key:
                return


async def _keep_off(running: RunningServer, peers: Peers) -> None:
    """Wait while another worker answers for keys that this one can't."""
    said = False
    while True:
        peers.tell(report_of(peers.worker, running.state.snapshot, running.watcher.seen_revision))
        why = peers.better()
        if not why:
            return
        if not said:
            said = True
            _log.warning("worker.keeps_off", why=why)
        await asyncio.sleep(_KEEP_OFF_SECONDS)


async def _tell_peers(watcher: RegistryWatcher, state: ServingState, peers: Peers) -> None:
    while True:
        version = watcher.version
        peers.tell(report_of(peers.worker, state.snapshot, watcher.seen_revision))
        with suppress(TimeoutError):
            async with asyncio.timeout(BEAT_SECONDS):
                await watcher.wait_for_change(version)


def _tell_snapshot(snapshot: ServingSnapshot) -> None:
    # a function of its own: a coroutine that runs on would hold the first snapshot, and its models, for ever
    _log.info("server.ready", revision=snapshot.revision, models=len(snapshot.by_key))


async def _tell_ready(running: RunningServer, on_ready: Callable[[int], None] | None) -> None:
    await running.listening.wait()
    await running.wait_until(lambda snapshot: snapshot.ready)
    if on_ready is not None:
        on_ready(running.port)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
