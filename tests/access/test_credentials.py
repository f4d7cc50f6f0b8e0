"""Tokens and client certificates at a real server: wrong, stolen, revoked, expired, rotated."""

from __future__ import annotations

import asyncio
import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from structlog.testing import capture_logs

from signalserve.access.identity import Role
from signalserve.access.token_file import read_tokens
from signalserve.client import AsyncSignalClient, PermissionDenied, Tls, Unauthenticated, Unavailable
from signalserve.common.moments import utc_now
from signalserve.v1 import registry_pb2
from tests.access.conftest import Securing
from tests.authority import Authority
from tests.small_models import NAMES, rows


async def refusal_of(client: AsyncSignalClient) -> Unauthenticated:
    """What a read is refused with."""
    async with client:
        with pytest.raises(Unauthenticated) as refused:
            await client.list_models()
    return refused.value


async def reason_of(client: AsyncSignalClient) -> str:
    """Why a read is refused."""
    return (await refusal_of(client)).reason


async def until_refused(client: AsyncSignalClient) -> Unauthenticated:
    """Ask again and again until the server refuses."""
    while True:
        try:
            await client.status()
        except Unauthenticated as error:
            return error


async def test_wrong_tokens_are_refused_and_the_answer_tells_nothing_of_them(securing: Securing) -> None:
    async with securing() as secured:
        good = secured.tokens[Role.READ]
        head, _, secret = good.rpartition("_")
        other = secured.tokens[Role.ADMIN].rpartition("_")[2]
        wrong = (
            f"{head}_{secret[:-1]}{'A' if secret[-1] != 'A' else 'B'}",
            f"{head}_{other}",
            f"sst_00000000_{secret}",
            secret,
            good[:-1],
            good + "A",
            "x",
        )
        # at once: each of them waits longer than the one before
        refusals = await asyncio.gather(*(refusal_of(secured.client(token)) for token in wrong))
        assert [refused.reason for refused in refusals] == ["TOKEN_INVALID"] * len(wrong)
        assert not any(secret[:8] in str(refused) for refused in refusals)
        assert await reason_of(secured.client(None)) == "CREDENTIAL_MISSING"


async def test_a_revoked_token_is_refused_and_another_of_the_same_name_goes_on(securing: Securing) -> None:
    async with securing() as secured:
        second, token = secured.file.create("the-read", ["read"])
        async with secured.as_role(Role.READ) as old, secured.client(token) as new:
            while True:  # the server has read the new token when it takes it
                try:
                    await new.list_models()
                    break
                except Unauthenticated:
                    continue
            first = next(
                entry
                for entry in read_tokens(secured.file.path).entries
                if entry.name == "the-read" and entry.id != second.id
            )
            secured.file.revoke(first.id)
            assert (await until_refused(old)).reason == "TOKEN_REVOKED"
            assert len(await new.list_models()) == 2


async def test_an_expired_token_is_refused(securing: Securing) -> None:
    async with securing() as secured:
        entry, token = secured.file.create("short", ["read"], expires_at=utc_now() + timedelta(hours=1))
        document = json.loads(secured.file.path.read_text())
        for values in document["tokens"]:
            if values["id"] == entry.id:
                values["expires_at"] = "2020-01-01T00:00:00+00:00"
        secured.file.path.write_text(json.dumps(document))
        async with secured.client(token) as client:
            while (refused := await until_refused(client)).reason == "TOKEN_INVALID":
                pass  # the server has not looked yet
        assert refused.reason == "TOKEN_EXPIRED"


async def test_a_stream_ends_with_the_token_that_opened_it_and_the_next_goes_on(securing: Securing) -> None:
    async with securing() as secured, secured.as_role(Role.PREDICT) as client:
        async with client.stream() as stream:
            await stream.send("BTCUSDT", "15m", rows(1)[0], feature_names=NAMES)
            assert (await anext(stream)).result().model_id == "one"
            # rotation as an operator does it: the new one first, and nothing is interrupted by that
            token = secured.file.create("the-predict", ["predict"])[1]
            await stream.send("BTCUSDT", "15m", rows(1)[0], feature_names=NAMES)
            assert (await anext(stream)).result().model_id == "one"
            old = read_tokens(secured.file.path).entries[0]
            assert old.name == "the-predict"
            secured.file.revoke(old.id)
            with pytest.raises(Unauthenticated) as ended:
                await anext(stream)  # nothing was sent: the server ends it by itself
            assert ended.value.reason == "CREDENTIAL_ENDED"
            await stream.cancel()
        async with secured.client(token) as renewed, renewed.stream() as stream:
            await stream.send("BTCUSDT", "15m", rows(1)[0], feature_names=NAMES)
            assert (await anext(stream)).result().model_id == "one"


async def test_a_watch_ends_with_the_token_that_opened_it(securing: Securing) -> None:
    async with securing() as secured, secured.as_role(Role.READ) as client:
        watch = client.watch_status()
        assert (await anext(watch)).ready
        secured.file.revoke("the-read")
        with pytest.raises(Unauthenticated):
            await anext(watch)


async def test_a_client_follows_its_token_file(securing: Securing, tmp_path: Path) -> None:
    async with securing() as secured:
        held = tmp_path / "held.token"
        held.write_text(secured.tokens[Role.READ] + "\n")
        async with secured.client(held) as client:
            assert len(await client.list_models()) == 2
            held.write_text(secured.tokens[Role.PREDICT])
            while True:
                try:
                    await client.list_models()
                except PermissionDenied as error:
                    assert "the-predict" in str(error)
                    break
            held.write_text("")  # no token: the last good one stays
            for _ in range(20):
                with pytest.raises(PermissionDenied):
                    await client.list_models()


async def test_a_broken_token_file_keeps_the_last_good_one_and_the_status_says_so(securing: Securing) -> None:
    async with securing() as secured, secured.as_role(Role.READ) as client:
        content = secured.file.path.read_bytes()
        for broken in (content[: len(content) // 2], b"", b"[]", b'{"format": 9, "tokens": []}', b"\xff"):
            secured.file.path.write_bytes(broken)
            while not any("stays in force" in warning for warning in (await client.status()).warnings):
                pass
            assert len(await client.list_models()) == 2
            secured.file.path.write_bytes(content)
            while (await client.status()).warnings:
                pass
        secured.file.path.unlink()
        os.mkfifo(secured.file.path)  # who opens it waits for ever
        while not any("is no file" in warning for warning in (await client.status()).warnings):
            pass
        secured.file.path.unlink()
        while not any("no token file" in warning for warning in (await client.status()).warnings):
            pass


async def test_the_authenticated_name_is_the_events_actor_whatever_the_caller_says(
    securing: Securing,
) -> None:
    async with securing() as secured, secured.as_role(Role.OPS) as client:
        stub = client._stubs.registry
        await stub.Promote(
            registry_pb2.PromoteRequest(
                promotions=[registry_pb2.Promotion(model_id="two")], reason="r", request_id="q"
            ),
            metadata=(
                *client._endpoint.metadata(),
                ("signalserve-actor", "ceo"),
                ("signalserve-via", "python"),
            ),
            timeout=60,
        )
        (event, *_) = [event async for event in client.events()]
        assert (event.action, event.actor, event.via) == ("promote", "the-ops", "rpc")


async def test_what_comes_through_the_lab_says_so(securing: Securing) -> None:
    async with securing() as secured:
        async with AsyncSignalClient(
            secured.target, token=secured.tokens[Role.OPS], tls=secured.tls, via="lab"
        ) as client:
            await client.promote("two", reason="r", deadline_ms=20_000)
            (event, *_) = [event async for event in client.events(deadline_ms=20_000)]
        assert (event.actor, event.via) == ("the-ops", "lab")


async def test_a_denied_change_changes_nothing_and_the_log_names_who_tried(securing: Securing) -> None:
    structlog.reset_defaults()
    async with securing() as secured:
        with capture_logs() as lines:
            for role in (Role.READ, Role.PREDICT):
                async with secured.as_role(role) as client:
                    with pytest.raises(PermissionDenied) as denied:
                        await client.promote("two", reason="r", force=True)
                    assert denied.value.reason == "ROLE_MISSING"
                    assert denied.value.metadata["needed"] == "ops, admin"
        tried = [line for line in lines if line["event"] == "access.denied"]
        assert [line["name"] for line in tried] == ["the-read", "the-predict"]
        async with secured.as_role(Role.READ) as client:
            assert {model.model_id: model.status for model in await client.list_models()}[
                "one"
            ] == "production"


async def test_failed_attempts_are_logged_and_wait_but_take_no_place_from_the_others(
    securing: Securing,
) -> None:
    structlog.reset_defaults()
    async with securing(server={"max_in_flight": 1}) as secured:
        with capture_logs() as lines:
            async with secured.client("wrong") as bad, secured.as_role(Role.READ) as good:
                attempts = [asyncio.create_task(bad.list_models()) for _ in range(30)]
                guard = secured.server.guard
                while guard.gatekeeper is None or guard.gatekeeper.attempts.total < 30:
                    await good.status()  # not once is the one place taken
                for attempt in attempts:
                    with pytest.raises(Unauthenticated):
                        await attempt
        (first, *_) = [line for line in lines if line["event"] == "access.unauthenticated"]
        assert first["address"].endswith("127.0.0.1")
        assert first["operation"].endswith("ListModels")
        assert "wrong" not in json.dumps(lines, default=str)


async def test_the_servers_certificate_is_replaced_under_a_running_stream(securing: Securing) -> None:
    async with securing() as secured, secured.as_role(Role.PREDICT) as client, client.stream() as stream:
        await stream.send("BTCUSDT", "15m", rows(1)[0], feature_names=NAMES)
        await anext(stream)
        other = Authority("CN=another")
        certificate, key = secured.folder / "server.crt", secured.folder / "server.key"
        pair = other.sign("CN=server")
        certificate.write_bytes(pair.certificate)  # the key is still the old one: no pair
        while not any("not the key of" in warning for warning in (await client.status()).warnings):
            pass
        async with secured.as_role(Role.READ) as newcomer:
            await newcomer.status()  # the last good one still serves
        key.write_bytes(pair.key)
        while (await client.status()).warnings:
            pass
        trust = Tls(other.write(secured.folder / "another.crt"))
        async with secured.client(secured.tokens[Role.READ], trust) as newcomer:
            await newcomer.status()
        await stream.send("BTCUSDT", "15m", rows(1)[0], feature_names=NAMES)
        assert (await anext(stream)).result().model_id == "one"


async def test_a_client_follows_its_certificates_and_its_streams_go_on(securing: Securing) -> None:
    async with securing(mutual=True) as secured:
        mine = secured.authority.sign("CN=engine-1,O=desk").write(secured.folder, "engine")
        secured.file.admit_certificate("engine-1", ["predict"], "CN=engine-1,O=desk")
        secured.file.admit_certificate("looker", ["read"], "CN=looker")
        tls = Tls(secured.folder / "ca.crt", *mine)
        async with secured.client(None, tls) as client:
            while True:
                try:
                    await client.status()
                    break
                except Unauthenticated:
                    continue
            async with client.stream() as stream:
                await stream.send("BTCUSDT", "15m", rows(1)[0], feature_names=NAMES)
                await anext(stream)
                with pytest.raises(PermissionDenied, match="engine-1"):
                    await client.list_models()
                secured.authority.sign("CN=looker").write(secured.folder, "engine")
                while True:
                    try:
                        await client.list_models()
                        break
                    except PermissionDenied:
                        continue
                await stream.send("BTCUSDT", "15m", rows(1)[0], feature_names=NAMES)
                assert (await anext(stream)).result().model_id == "one"


async def test_client_certificates_are_known_by_their_subject(securing: Securing) -> None:
    async with securing(mutual=True) as secured:
        pairs = {
            name: Tls(secured.folder / "ca.crt", *secured.authority.sign(subject).write(secured.folder, name))
            for name, subject in (("known", "CN=a,O=desk"), ("unknown", "CN=b"), ("turned", "O=desk,CN=a"))
        }
        stranger = Authority().sign("CN=a,O=desk").write(secured.folder, "stranger")
        entry = secured.file.admit_certificate("a", ["ops"], "CN=a,O=desk")
        async with secured.client(None, pairs["known"]) as client:
            while True:
                try:
                    await client.promote("two", reason="r")
                    break
                except Unauthenticated:
                    continue
            (event, *_) = [event async for event in client.events()]
            assert event.actor == "a"
            for name in ("unknown", "turned"):
                assert await reason_of(secured.client(None, pairs[name])) == "CERTIFICATE_UNKNOWN"
            for tls in (secured.tls, Tls(secured.folder / "ca.crt", *stranger)):
                async with secured.client(secured.tokens[Role.OPS], tls) as nobody:
                    with pytest.raises(Unavailable):
                        await nobody.status(deadline_ms=2_000)
            # a token says more than the certificate that it comes with
            async with secured.client(secured.tokens[Role.PREDICT], pairs["known"]) as both:
                with pytest.raises(PermissionDenied, match="the-predict"):
                    await both.list_models()
            secured.file.revoke(entry.id)
            assert (await until_refused(client)).reason == "CERTIFICATE_REVOKED"


async def test_the_health_port_answers_without_tls_and_answers_nothing_else(
    securing: Securing, unused_tcp_port: int
) -> None:
    async with (
        securing(server={"health_port": unused_tcp_port}),
        grpc.aio.insecure_channel(f"127.0.0.1:{unused_tcp_port}") as channel,
    ):
        check = health_pb2_grpc.HealthStub(channel).Check
        request: Any = health_pb2.HealthCheckRequest()
        while (await check(request, timeout=60)).status != health_pb2.HealthCheckResponse.SERVING:
            pass
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.unary_unary("/signalserve.v1.RegistryService/Promote")(b"", timeout=60)
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_who_may_not_call_is_refused_before_the_message_is_read(securing: Securing) -> None:
    """A message that is never finished: a handler that read it first would wait for its rest."""
    async with (
        securing() as secured,
        grpc.aio.secure_channel(
            secured.target, grpc.ssl_channel_credentials((secured.folder / "ca.crt").read_bytes())
        ) as channel,
    ):
        for operation in (
            "PredictionService/Predict",
            "RegistryService/Promote",
            "PredictionService/PredictStream",
        ):
            call = channel.stream_stream(f"/signalserve.v1.{operation}")(
                metadata=(("authorization", "Bearer wrong"),), timeout=60
            )
            assert await call.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_client_certificate_that_has_ended_is_refused_on_a_connection_that_is_open(
    securing: Securing,
) -> None:
    async with securing(mutual=True) as secured:
        short = secured.authority.sign("CN=short", days=3 / 86_400).write(secured.folder, "short")
        secured.file.admit_certificate("short", ["read"], "CN=short")
        async with secured.client(None, Tls(secured.folder / "ca.crt", *short)) as client:
            watch = client.watch_status()
            reasons: set[str] = set()
            while "CERTIFICATE_EXPIRED" not in reasons:
                try:
                    await client.list_models()
                except Unauthenticated as error:
                    reasons.add(error.reason)
            with pytest.raises(Unauthenticated):
                while True:
                    await anext(watch)


async def test_a_token_file_that_could_not_be_read_for_a_while_is_read_when_it_can(
    securing: Securing, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with securing() as secured, secured.as_role(Role.READ) as client:
        original = os.open

        def out_of_files(path: Any, *rest: Any, **more: Any) -> int:
            if Path(path) == secured.file.path:
                raise OSError(24, "Too many open files", str(path))
            return original(path, *rest, **more)

        secured.file.revoke("the-ops")
        monkeypatch.setattr(os, "open", out_of_files)
        secured.file.path.touch()
        while not any("Too many open files" in warning for warning in (await client.status()).warnings):
            pass
        monkeypatch.setattr(os, "open", original)
        async with secured.as_role(Role.OPS) as revoked:
            assert (await until_refused(revoked)).reason == "TOKEN_REVOKED"
        while (await client.status()).warnings:
            pass
