"""Every page's router, in the order in which they are asked."""

from __future__ import annotations

from signalserve.lab.pages import (
    actions,
    assets,
    compare,
    events,
    history,
    live,
    login,
    model,
    models,
    server,
)

ROUTERS = tuple(
    module.router
    for module in (models, actions, model, compare, history, live, events, server, login, assets)
)
