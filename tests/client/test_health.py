import asyncio
import threading

import pytest

from signalserve.client import (
    AsyncSignalClient,
    Cancelled,
    DeadlineExceeded,
    Health,
    NotFound,
    SignalClient,
    Unavailable,
)
from tests.server.conftest import server_process
from tests.small_models import register_copy, sealed_template

LONG = 20_000


@pytest.fixture
def client(server):
    with SignalClient(server.target) as opened:
        yield opened


def test_health_is_that_of_the_server_or_of_what_it_tells_apart(client, server):
    server.health.say("X/15m", "NOT_SERVING")
    assert client.health(deadline_ms=LONG) is Health.SERVING
    assert client.health("X/15m", deadline_ms=LONG) is Health.NOT_SERVING
    assert [Health.SERVING.ok, Health.NOT_SERVING.ok] == [True, False]
    with pytest.raises(NotFound):
        client.health("Y/15m")
    server.stop()
    with pytest.raises((Unavailable, DeadlineExceeded)):
        client.health(deadline_ms=250)


async def test_the_async_client_asks_likewise(server):
    server.health.say("X/15m", "NOT_SERVING")
    async with AsyncSignalClient(server.target) as client:
        assert await client.health(deadline_ms=LONG) is Health.SERVING
        assert await client.health("X/15m") is Health.NOT_SERVING
        with pytest.raises(NotFound):
            await client.health("Y/15m")


def test_a_server_that_does_not_serve_yet_is_waited_for(client, server):
    server.health.say("", "NOT_SERVING")
    waiting = threading.Thread(target=client.wait_ready, args=(LONG,))
    waiting.start()
    assert server.health.watched.wait(20)
    assert waiting.is_alive()
    server.health.say("", "SERVING")
    waiting.join()


def test_a_key_that_is_not_there_yet_is_waited_for(client, server):
    waiting = threading.Thread(target=client.wait_ready, args=(LONG,), kwargs={"service": "X/15m"})
    waiting.start()
    assert server.health.watched.wait(20)
    assert waiting.is_alive()
    server.health.say("X/15m", "SERVING")
    waiting.join()


def test_a_wait_that_is_too_long_says_what_the_server_said_last(client, server):
    server.health.say("X/15m", "NOT_SERVING")
    said = f"X/15m at {server.target} is NOT_SERVING and was not SERVING within 150 ms"
    with pytest.raises(DeadlineExceeded, match=said):
        client.wait_ready(150, service="X/15m")


def test_a_wait_goes_on_over_a_restart(client, server):
    server.health.say("", "NOT_SERVING")
    waiting = threading.Thread(target=client.wait_ready, args=(LONG,))
    waiting.start()
    assert server.health.watched.wait(20)
    server.stop()
    server.health.say("", "SERVING")
    server.start()
    waiting.join()


def test_closing_the_client_ends_a_wait(server):
    server.health.say("", "NOT_SERVING")
    client, caught = SignalClient(server.target), []

    def wait():
        with pytest.raises(Cancelled) as error:
            client.wait_ready(LONG)
        caught.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert server.health.watched.wait(20)
    client.close()
    waiting.join()
    assert caught


async def test_the_async_client_waits_likewise(server):
    server.health.say("", "NOT_SERVING")
    async with AsyncSignalClient(server.target) as client:
        with pytest.raises(DeadlineExceeded, match="is NOT_SERVING"):
            await client.wait_ready(150)
        waiting = asyncio.create_task(client.wait_ready(LONG))
        await asyncio.to_thread(server.stop)
        server.health.say("", "SERVING")
        await asyncio.to_thread(server.start)
        await waiting
        server.health.say("", "NOT_SERVING")
        server.health.watched.clear()
        waiting = asyncio.create_task(client.wait_ready(LONG))
        await asyncio.to_thread(server.health.watched.wait, 20)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting


def test_a_real_server_says_its_health(tmp_path):
    template = sealed_template(tmp_path / "template")
    register_copy(template, tmp_path / "models", "btc")
    with (
        server_process(tmp_path / "models", tmp_path / "log") as (_, target),
        SignalClient(target) as client,
    ):
        client.wait_ready(LONG)
        client.wait_ready(LONG, service="signalserve.v1.PredictionService")
        assert client.health(deadline_ms=LONG).ok
        with pytest.raises(NotFound):
            client.health("nobody.knows.This")
