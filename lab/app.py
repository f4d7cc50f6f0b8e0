"""The composition root of the lab: the only module of it that reads the configuration."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from functools import partial

import structlog
from cryptography.fernet import Fernet
from fastapi import Depends, FastAPI

from signalserve import __version__
from signalserve.access.certificates import TlsPaths
from signalserve.access.errors import AccessSetupError
from signalserve.access.exposure import is_loopback
from signalserve.access.opening import ServerAccess, open_access
from signalserve.client.tls import tls_files
from signalserve.config.logs import configure_logs
from signalserve.config.settings import Settings
from signalserve.judging import Policy, PromoteGate
from signalserve.lab.api import access as access_api
from signalserve.lab.api import actions, backtests, compare, events, history, live, models, server, stream
from signalserve.lab.api.openapi import describe
from signalserve.lab.api.problems import add_handlers
from signalserve.lab.changes import Changes, Pace, Stopping
from signalserve.lab.guard import Guard, allowed_hosts
from signalserve.lab.identity import Doorkeeper, admitted
from signalserve.lab.pages.errors import as_page, dress_errors
from signalserve.lab.pages.routers import ROUTERS as PAGES
from signalserve.lab.parts import Lab
from signalserve.lab.rows import check_rows
from signalserve.lab.server import ServerLink
from signalserve.lab.serving import bound_socket, serve, told_by_signals
from signalserve.lab.sessions import Sessions, session_key
from signalserve.registry import open_registry
from signalserve.trading.rules import TradingRules

_log = structlog.get_logger("lab")

# a key is matched last: its two parts fit other routes' too
_MODULES = (backtests, models, compare, history, events, live, server, actions, stream, access_api)


def create_app(
    settings: Settings,
    *,
    stopping: Stopping | None = None,
    pace: Pace | None = None,
) -> FastAPI:
    """The application; nothing is read before it starts, and nothing is ever made.

    Raises:
        AccessSetupError: the address may not be served like this, or a token file or certificate can't be used.

    Args:
        settings: the configuration.
        stopping: is set when the process is about to stop, so that streams end.
        pace: how the streams of changes behave.
    """
    access = access_of(settings)
    lab = lab_of(settings)
    stopping = Stopping() if stopping is None else stopping

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        with (
            told_by_signals(stopping),
            closing(lab.fleet),
            access.following(settings.server.poll_ms / 1000),
        ):
            warming = asyncio.create_task(asyncio.to_thread(lab.warm))
            yield
            await warming

    app = FastAPI(
        title="signalserve ML Lab",
        version=__version__,
        description="The registry, its models and the live engines, for people who decide in a browser.",
        openapi_url="/api/openapi.json",
        docs_url=None,  # it loads its scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        lifespan=life,
        dependencies=[Depends(admitted)],
    )
    app.state.lab = lab
    app.state.door = door_of(settings, access)
    app.state.access = access
    app.state.changes = Changes(lab, stopping, pace)
    add_handlers(app)
    dress_errors(app)
    routers = [module.router for module in _MODULES]
    check_rows([*app.routes, *(route for router in (*routers, *PAGES) for route in router.routes)])
    for router in (*routers, *PAGES):
        app.include_router(router)
    describe(app, routers)
    app.add_middleware(
        Guard, hosts=allowed_hosts(settings.lab.host, settings.lab.allowed_hosts), shown=as_page
    )
    return app


def lab_of(settings: Settings) -> Lab:
    """The read models of the configured registry; nothing is read or made yet. Close its `server`."""
    registry = open_registry(
        settings.ml.models_dir.resolve(),
        gate=PromoteGate.of(settings),
        pins=settings.ml.pinned_ids(),
        unmade_is_empty=True,  # the pages wait for the first model
    )
    return Lab.of(
        registry,
        _server_link(settings, settings.client.target),
        others=[_server_link(settings, target) for target in settings.lab.servers],
        backtest_dir=settings.backtest.output_dir.resolve(),
        snapshot_dir=settings.live.snapshot_dir.resolve(),
        rules=TradingRules.of(settings.trading),
        policy=Policy.of(settings.promotion),
    )


def access_of(settings: Settings) -> ServerAccess:
    """How the lab speaks and whom it knows.

    Raises:
        AccessSetupError: the address may not be served like this, or a token file or certificate can't be used.
    """
    security = settings.security
    return open_access(
        settings.lab.host,
        tls=tls_of(settings),
        token_file=security.token_file,
        insecure=security.insecure,
        what="anyone who reaches it could read every model and the log",
    )


def tls_of(settings: Settings) -> TlsPaths | None:
    """The server's own certificate and key, where they are configured; browsers are asked for none of theirs."""
    security = settings.security
    return TlsPaths.of(security.tls_cert, security.tls_key)


def door_of(settings: Settings, access: ServerAccess) -> Doorkeeper:
    """Who asks, and may they.

    Raises:
        AccessSetupError: the sessions' key can't be used.
    """
    lab = settings.lab
    # without tokens nobody can log in, and no key is needed on disk
    key = Fernet.generate_key() if access.gatekeeper is None else session_key(lab.session_key.resolve())
    return Doorkeeper(
        Sessions(key, lab.session_hours * 3600, secure=access.tls is not None),
        access.gatekeeper,
        # a proxy that has a name of its own brings others here
        visitors_read=settings.security.insecure or (is_loopback(lab.host) and not lab.allowed_hosts),
    )


def _server_link(settings: Settings, target: str) -> ServerLink:
    client = settings.client
    return ServerLink(
        target,
        deadline_ms=settings.lab.status_deadline_ms,
        tls=tls_files(
            client.tls_ca, client.tls_cert, client.tls_key, client.tls_server_name, always=client.tls
        ),
        own_token=client.token_file,
        insecure=client.insecure,
    )


def run_lab(settings: Settings, on_ready: Callable[[int], None] | None = None) -> None:
    """Serve in this process, or in `lab.workers` of them, until SIGTERM or SIGINT; `on_ready` gets the port.

    Raises:
        OSError: the address can't be bound.
        AccessSetupError: as `create_app` says.
    """
    access = access_of(settings)  # a worker would refuse too, again and again
    door_of(settings, access)
    with bound_socket(settings.lab.host, settings.lab.port) as bound:
        if on_ready is not None:
            on_ready(bound.getsockname()[1])
        for warning in access.warnings():
            _log.warning("lab.access", warning=warning)
        serve(partial(_app_of, settings), bound, settings.lab.workers, tls_of(settings))


def _app_of(settings: Settings) -> FastAPI:
    configure_logs(settings.logging)  # a worker starts with nothing of its parent's
    try:
        return create_app(settings)
    except AccessSetupError as error:  # files that went bad since the others started
        _log.error("worker.can_not_start", why=error.fact)
        sys.exit(1)
