"""The one table: what may be done, and which roles may do it. Guard, pages and `signalserve access` read it.

An operation without a row can't be served: the server that has one does not start.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from signalserve.access.identity import Role

ANYBODY: frozenset[Role] | None = None
PREDICTING = frozenset({Role.PREDICT, Role.OPS, Role.ADMIN})
READING = frozenset({Role.READ, Role.OPS, Role.ADMIN})
EITHER = PREDICTING | READING
DECIDING = frozenset({Role.OPS, Role.ADMIN})
ADMINISTERING = frozenset({Role.ADMIN})


@dataclass(frozen=True)
class Row:
    """An operation: an RPC as `/package.Service/Method`, or an HTTP route as `METHOD /path/{parameter}`.

    `roles`: any of them may; None: anybody, known or not.
    """

    operation: str
    roles: frozenset[Role] | None
    why: str = ""

    @property
    def who(self) -> str:
        """The roles as people read them."""
        return "anybody" if self.roles is None else ", ".join(role for role in Role if role in self.roles)


_PREDICTION = "/signalserve.v1.PredictionService"
_REGISTRY = "/signalserve.v1.RegistryService"
_HEALTH = "/grpc.health.v1.Health"

TABLE: tuple[Row, ...] = (
    Row(f"{_PREDICTION}/Predict", PREDICTING),
    Row(f"{_PREDICTION}/PredictBatch", PREDICTING),
    Row(f"{_PREDICTION}/PredictStream", PREDICTING),
    Row(f"{_PREDICTION}/GetServingStatus", EITHER, "an engine asks which model answers it"),
    Row(f"{_PREDICTION}/WatchServingStatus", EITHER),
    Row(f"{_REGISTRY}/GetModel", EITHER, "an engine asks which features its model takes"),
    Row(f"{_REGISTRY}/ListModels", READING),
    Row(f"{_REGISTRY}/ListEvents", READING),
    Row(f"{_REGISTRY}/Promote", DECIDING),
    Row(f"{_REGISTRY}/Rollback", DECIDING),
    Row(f"{_REGISTRY}/Archive", DECIDING),
    Row(f"{_HEALTH}/Check", ANYBODY, "load balancers have no token"),
    Row(f"{_HEALTH}/List", ANYBODY),
    Row(f"{_HEALTH}/Watch", ANYBODY),
    Row("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", EITHER),
    # ML Lab's routes, as they are written in its code
    Row("GET /api/openapi.json", ANYBODY),
    *(
        Row(f"GET /api/ml/{path}", READING)
        for path in (
            "models",
            "models/{model_id}",
            "models/{model_id}/importance",
            "models/{model_id}/proof",
            "models/{model_id}/backtests",
            "models/{model_id}/backtests/{name}",
            "models/{symbol:path}/{timeframe}",
            "compare",
            "keys",
            "history",
            "events",
            "events/chain",
            "events/{revision}",
            "live",
            "live/{name}",
            "server",
            "server/processes",
            "stream",
            "promote/preview",
            "rollback/preview",
            "archive/preview",
        )
    ),
    *(Row(f"POST /api/ml/{change}", DECIDING) for change in ("promote", "rollback", "archive")),
    Row("GET /api/ml/access", ADMINISTERING, "who has which token"),
    *(
        Row(f"GET {path}", READING)
        for path in (
            "/",
            "/models/{model_id}",
            "/compare",
            "/history",
            "/history/{symbol:path}/{timeframe}",
            "/live",
            "/events",
            "/events/{revision}",
            "/server",
            "/models/{model_id}/promote",
            "/rollback",
            "/archive",
        )
    ),
    *(Row(f"POST {path}", DECIDING) for path in ("/models/{model_id}/promote", "/rollback", "/archive")),
    *(
        Row(operation, ANYBODY)
        for operation in (
            "GET /login",
            "POST /login",
            "POST /logout",
            "GET /static/{digest}/{name}",
            "GET /static/plotly-{release}.js",
        )
    ),
)
_BY_OPERATION = {row.operation: row for row in TABLE}


def row_of(operation: str) -> Row:
    """The row of an operation.

    Raises:
        KeyError: it has none, so nothing may serve it.
    """
    try:
        return _BY_OPERATION[operation]
    except KeyError:
        raise KeyError(f"{operation} has no row in access/table.py: who may do it?") from None


def without_row(operations: Iterable[str]) -> list[str]:
    """Those of the operations that have no row."""
    return [operation for operation in operations if operation not in _BY_OPERATION]
