"""Every RPC against every role and none; an operation without a row can't be served."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from signalserve.access import table
from signalserve.access.identity import Role
from signalserve.access.table import TABLE, row_of
from signalserve.server.guard import CallGuard
from signalserve.server.metrics import ServerMetrics
from signalserve.server.wire.handlers import guarded
from signalserve.v1 import prediction_service_pb2, registry_service_pb2
from tests.access.conftest import Secured, Securing
from tests.cli.test_commands import signalserve

SERVICES = [
    prediction_service_pb2.DESCRIPTOR.services_by_name["PredictionService"],
    registry_service_pb2.DESCRIPTOR.services_by_name["RegistryService"],
    health_pb2.DESCRIPTOR.services_by_name["Health"],
    reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"],
]
METHODS = {
    f"/{service.full_name}/{method.name}": method for service in SERVICES for method in service.methods
}


async def code_of(channel: grpc.aio.Channel, operation: str, token: str | None) -> str:
    """What a call with an empty message ends or begins with: a status code's name, OK for an answer."""
    method = METHODS[operation]
    kinds = "stream" if method.client_streaming else "unary", "stream" if method.server_streaming else "unary"
    answer: type[Message] = GetMessageClass(method.output_type)
    call = getattr(channel, "_".join(kinds))(
        operation,
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=answer.FromString,
    )
    request = GetMessageClass(method.input_type)()
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    try:
        if kinds == ("unary", "unary"):
            await call(request, metadata=metadata, timeout=60)
        else:
            opened = call(*([] if method.client_streaming else [request]), metadata=metadata, timeout=60)
            if method.client_streaming:
                await opened.write(request)
            await opened.read()
            opened.cancel()
    except grpc.aio.AioRpcError as error:
        return str(error.code().name)
    return "OK"


def secure_channel(secured: Secured) -> grpc.aio.Channel:
    return grpc.aio.secure_channel(
        secured.target, grpc.ssl_channel_credentials((secured.folder / "ca.crt").read_bytes())
    )


async def test_every_rpc_answers_the_roles_of_its_row_and_refuses_all_others(securing: Securing) -> None:
    async with securing() as secured, secure_channel(secured) as channel:
        for operation in METHODS:
            allowed = row_of(operation).roles
            for role in Role:
                code = await code_of(channel, operation, secured.tokens[role])
                refused = code in {"PERMISSION_DENIED", "UNAUTHENTICATED"}
                assert refused == (allowed is not None and role not in allowed), (operation, role, code)
                assert code != "UNAUTHENTICATED", (operation, role)
        # at once: each refusal waits longer than the one before
        unknown = await asyncio.gather(*(code_of(channel, operation, None) for operation in METHODS))
        for operation, code in zip(METHODS, unknown, strict=True):
            assert (code == "UNAUTHENTICATED") == (row_of(operation).roles is not None), (operation, code)


def test_the_table_has_a_row_for_every_rpc_and_none_for_anything_else() -> None:
    assert {row.operation for row in TABLE if row.operation.startswith("/")} == set(METHODS)
    assert len({row.operation for row in TABLE}) == len(TABLE)


def test_a_service_with_a_method_that_has_no_row_is_not_served(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {row.operation: row for row in TABLE if not row.operation.endswith("/Archive")}
    monkeypatch.setattr(table, "_BY_OPERATION", rows)
    service: Any = SimpleNamespace(
        takes_bytes=frozenset(), **{method.name: None for method in SERVICES[1].methods}
    )
    with pytest.raises(KeyError, match="RegistryService/Archive has no row"):
        guarded(service, SERVICES[1], CallGuard(1, ServerMetrics().counts))


def test_changes_to_production_are_for_ops_and_admin_alone() -> None:
    for name in ("Promote", "Rollback", "Archive"):
        assert row_of(f"/signalserve.v1.RegistryService/{name}").roles == {Role.OPS, Role.ADMIN}


def test_the_command_prints_the_table() -> None:
    rows = {row["operation"]: row["roles"] for row in json.loads(signalserve("access", "--json"))}
    assert rows["/signalserve.v1.RegistryService/Promote"] == ["ops", "admin"]
    assert rows["/grpc.health.v1.Health/Check"] is None
    assert all(row.operation in signalserve("access") for row in TABLE)
