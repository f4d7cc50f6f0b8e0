"""The composition root of the lab: the only module of it that reads the configuration."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from functools import partial

from fastapi import FastAPI

from signalserve import __version__
from signalserve.config.logs import configure_logs
from signalserve.config.settings import Settings
from signalserve.judging import Policy, PromoteGate
from signalserve.lab.api import actions, backtests, compare, events, history, live, models, server, stream
from signalserve.lab.api.openapi import describe
from signalserve.lab.api.problems import add_handlers
from signalserve.lab.changes import Changes, Pace, Stopping
from signalserve.lab.guard import Guard, allowed_hosts
from signalserve.lab.identity import Identify, bearer
from signalserve.lab.parts import Lab
from signalserve.lab.server import ServerLink
from signalserve.lab.serving import bound_socket, serve, told_by_signals
from signalserve.registry import open_registry
from signalserve.trading.rules import TradingRules

# the longest request is an archive of a thousand models
_LONGEST_BODY = 1024 * 1024
# a key is matched last: its two parts fit other routes' too
_ROUTERS = (backtests, models, compare, history, events, live, server, actions, stream)


def create_app(
    settings: Settings,
    *,
    identify: Identify = bearer,
    stopping: Stopping | None = None,
    pace: Pace | None = None,
) -> FastAPI:
    """The application; nothing is read or made before the first request.

    Args:
        settings: the configuration.
        identify: says who asks; see `lab.identity`.
        stopping: is set when the process is about to stop, so that streams end.
        pace: how the streams of changes behave.
    """
    lab = lab_of(settings)
    stopping = stopping or Stopping()

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        with told_by_signals(stopping), closing(lab.server):
            yield

    app = FastAPI(
        title="signalserve ML Lab",
        version=__version__,
        description="The registry, its models and the live engines, for people who decide in a browser.",
        openapi_url="/api/openapi.json",
        docs_url=None,  # it loads its scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        max_body_size=_LONGEST_BODY,
        lifespan=life,
    )
    app.state.lab = lab
    app.state.identify = identify
    app.state.changes = Changes(lab, stopping, pace)
    add_handlers(app)
    for module in _ROUTERS:
        app.include_router(module.router)
    describe(app)
    app.add_middleware(Guard, hosts=allowed_hosts(settings.lab.host, settings.lab.allowed_hosts))
    return app


def lab_of(settings: Settings) -> Lab:
    """The read models of the configured registry; nothing is read or made yet. Close its `server`."""
    registry = open_registry(
        settings.ml.models_dir.resolve(), gate=PromoteGate.of(settings), pins=settings.ml.pinned_ids()
    )
    return Lab.of(
        registry,
        ServerLink(settings.client.target, deadline_ms=settings.lab.status_deadline_ms),
        backtest_dir=settings.backtest.output_dir.resolve(),
        snapshot_dir=settings.live.snapshot_dir.resolve(),
        rules=TradingRules.of(settings.trading),
        policy=Policy.of(settings.promotion),
    )


def run_lab(settings: Settings, on_ready: Callable[[int], None] | None = None) -> None:
    """Serve in this process, or in `lab.workers` of them, until SIGTERM or SIGINT; `on_ready` gets the port.

    Raises:
        OSError: the address can't be bound.
    """
    with bound_socket(settings.lab.host, settings.lab.port) as bound:
        if on_ready is not None:
            on_ready(bound.getsockname()[1])
        serve(partial(_app_of, settings), bound, settings.lab.workers)


def _app_of(settings: Settings) -> FastAPI:
    configure_logs(settings.logging)  # a worker starts with nothing of its parent's
    return create_app(settings)
