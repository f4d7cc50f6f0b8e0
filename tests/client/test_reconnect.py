"""A stream that reconnects: what its caller sees of a server that goes, drains, hangs or is full."""

import asyncio
import threading
from contextlib import ExitStack

import grpc
import numpy as np
import pytest
from grpc_status import rpc_status

from signalserve.client import (
    AsyncSignalClient,
    Cancelled,
    DeadlineExceeded,
    InternalError,
    SignalClient,
    SignalServeError,
    Unavailable,
)
from tests.client.conftest import error_status
from tests.server.conftest import server_process
from tests.small_models import NAMES, fitted, register_copy, rows, sealed_template

LONG = 60_000
COUNT = 300


@pytest.fixture
def client(server):
    with SignalClient(server.target, deadline_ms=LONG) as opened:
        yield opened


def on_streams(server, spoil):
    """Do this before each answer of a stream; gives the sequences that each of its calls was asked."""
    server.prediction.before_answer = spoil
    return server.prediction.streams


def abort(context, code="UNAVAILABLE", **details):
    context.abort_with_status(rpc_status.to_status(error_status(code, **details)))


def scores(items):
    return [item.result().score for item in items]


def drain_twice(call, place, _request, context):
    if call < 3 and place == 100:
        abort(context)


def test_a_server_that_drains_twice_in_mid_stream_costs_no_answer_and_no_order(client, server):
    asked = on_streams(server, drain_twice)
    with client.stream(deadline_ms=LONG, reconnect=True) as stream:
        sent = [stream.send("X", "15m", {"a": float(n)}) for n in range(COUNT)]
        stream.close()
        items = list(stream)
    assert [item.sequence for item in items] == sent == list(range(1, COUNT + 1))
    assert scores(items) == [float(n) for n in range(COUNT)]
    assert len(asked) == 3
    assert [mine[0] for mine in asked] == [1, 100, 199]  # what was answered is not asked again


async def test_the_async_stream_goes_on_likewise(server):
    asked = on_streams(server, drain_twice)
    async with (
        AsyncSignalClient(server.target) as client,
        client.stream(deadline_ms=LONG, reconnect=True) as stream,
    ):
        sent = [await stream.send("X", "15m", {"a": float(n)}) for n in range(COUNT)]
        await stream.close()
        items = [item async for item in stream]
    assert [item.sequence for item in items] == sent
    assert scores(items) == [float(n) for n in range(COUNT)]
    assert len(asked) == 3  # grpc.aio may lose answers that came before the end: those are asked again


def test_a_restart_between_two_bars_is_not_noticed(client, server):
    with client.stream(deadline_ms=LONG, reconnect=True) as stream:
        for bar in range(6):
            if bar % 2:
                server.stop()
                server.start()
            sequence = stream.send("X", "15m", {"a": float(bar)})
            item = next(stream)
            assert (item.sequence, item.result().score) == (sequence, float(bar))


async def test_a_restart_between_two_bars_is_not_noticed_by_the_async_stream(server):
    async with (
        AsyncSignalClient(server.target) as client,
        client.stream(deadline_ms=LONG, reconnect=True) as stream,
    ):
        for bar in range(6):
            if bar % 2:
                await asyncio.to_thread(server.stop)
                await asyncio.to_thread(server.start)
            sequence = await stream.send("X", "15m", {"a": float(bar)})
            item = await anext(stream)
            assert (item.sequence, item.result().score) == (sequence, float(bar))


def test_a_stream_goes_over_to_another_real_server_when_its_own_is_told_to_stop(tmp_path):
    base = tmp_path / "models"
    register_copy(sealed_template(tmp_path / "template"), base, "btc")
    X = rows(COUNT)
    with ExitStack() as held:
        first, one = held.enter_context(server_process(base, tmp_path / "log"))
        second, other = held.enter_context(server_process(base, tmp_path / "log2"))
        client = held.enter_context(SignalClient(f"ipv4:{one},{other}", deadline_ms=LONG))
        stream = held.enter_context(client.stream(deadline_ms=LONG, reconnect=True))
        found = []
        for n in range(COUNT):
            if n == 100:
                first.terminate()
            elif n == 150:
                assert first.wait() == 0
                port = one.rpartition(":")[2]
                held.enter_context(server_process(base, tmp_path / "log3", "--port", port))
            elif n == 200:
                second.terminate()
            elif n == 250:  # on whichever of the two it began, it has had to leave it
                assert second.wait() == 0
            stream.send("BTCUSDT", "15m", X[n], "btc", feature_names=NAMES)
            found.append(next(stream).result().score)
    np.testing.assert_allclose(found, fitted(0).predict_proba(X)[:, 1], atol=1e-6)


def test_a_server_that_is_away_costs_each_request_its_deadline_and_the_stream_goes_on(client, server):
    server.stop()
    with client.stream(deadline_ms=200, reconnect=True) as stream:
        for _ in range(2):
            sequence = stream.send("X", "15m", {"a": 1.0})
            item = next(stream)
            assert item.sequence == sequence
            assert isinstance(item.error, DeadlineExceeded)
        server.start()
        client.wait_ready(LONG)
        while not item.ok:
            stream.send("X", "15m", {"a": 2.0})
            item = next(stream)
        assert item.result().score == 2.0


async def test_a_server_that_is_away_ends_no_async_stream_either(server):
    await asyncio.to_thread(server.stop)
    async with (
        AsyncSignalClient(server.target) as client,
        client.stream(deadline_ms=200, reconnect=True) as stream,
    ):
        for _ in range(2):
            sequence = await stream.send("X", "15m", {"a": 1.0})
            item = await anext(stream)
            assert item.sequence == sequence
            assert isinstance(item.error, DeadlineExceeded)
        await asyncio.to_thread(server.start)
        await client.wait_ready(LONG)
        while not item.ok:
            await stream.send("X", "15m", {"a": 2.0})
            item = await anext(stream)
        assert item.result().score == 2.0


def hang_once(server):
    def spoil(call, place, request, _context):
        if call == 1 and place == 2:
            server.prediction.release.wait(60)

    return on_streams(server, spoil)


def test_a_server_that_hangs_costs_one_request_its_answer_and_no_other(client, server):
    hang_once(server)
    with client.stream(deadline_ms=1_000, reconnect=True) as stream:
        stream.send("X", "15m", {"a": 1.0})
        assert next(stream).ok
        stream.send("X", "15m", {"a": 2.0})
        error = next(stream).error
        assert isinstance(error, DeadlineExceeded)
        assert "no answer to sequence 2 within 1000 ms" in str(error)
        stream.send("X", "15m", {"a": 3.0})
        assert next(stream).result().score == 3.0
    server.prediction.release.set()


async def test_a_server_that_hangs_costs_one_request_of_an_async_stream(server):
    hang_once(server)
    async with (
        AsyncSignalClient(server.target) as client,
        client.stream(deadline_ms=1_000, reconnect=True) as stream,
    ):
        found = []
        for n in range(3):
            await stream.send("X", "15m", {"a": float(n)})
            found.append((await anext(stream)).ok)
        assert found == [True, False, True]
    server.prediction.release.set()


def test_a_request_that_takes_three_servers_down_is_not_sent_to_a_fourth(client, server):
    def lose(_call, _place, request, context):
        if request.symbol == "KILLER":  # without a reason, as a process that died
            context.abort(grpc.StatusCode.UNAVAILABLE, "connection reset")

    asked = on_streams(server, lose)
    with client.stream(deadline_ms=LONG, reconnect=True) as stream:
        for symbol in ("X", "KILLER", "X"):
            stream.send(symbol, "15m", {"a": 1.0})
            item = next(stream)
            assert item.ok == (symbol == "X")
            assert item.ok or isinstance(item.error, Unavailable)
    assert [mine.count(2) for mine in asked] == [1, 1, 1, 0]


def test_two_calls_that_are_lost_at_once_cost_no_answer(client, server):
    def lose(call, place, _request, context):
        if (
            place == 2 - (call > 1) and call < 3
        ):  # the second as soon as it is asked, over a connection that is gone
            context.abort(grpc.StatusCode.UNAVAILABLE, "broken pipe")

    asked = on_streams(server, lose)
    with client.stream(deadline_ms=LONG, reconnect=True) as stream:
        for n in range(8):
            stream.send("X", "15m", {"a": float(n)})
        stream.close()
        assert scores(stream) == [float(n) for n in range(8)]
    assert len(asked) == 3


def test_a_full_server_is_asked_again_when_it_said(client, server):
    def full(call, _place, _request, context):
        if call == 1:
            abort(context, "RESOURCE_EXHAUSTED", retry_after=0.02)

    asked = on_streams(server, full)
    with client.stream(deadline_ms=LONG, reconnect=True) as stream:
        stream.send("X", "15m", {"a": 1.0})
        assert next(stream).ok
    assert asked == [[1], [1]]


@pytest.mark.parametrize("code", ["PERMISSION_DENIED", "UNAUTHENTICATED", "INTERNAL", "RESOURCE_EXHAUSTED"])
def test_what_no_other_server_would_do_better_breaks_the_stream(client, server, code):
    asked = on_streams(server, lambda _call, _place, _request, context: abort(context, code))
    with (
        pytest.raises(SignalServeError, match=code),
        client.stream(deadline_ms=LONG, reconnect=True) as stream,
    ):
        stream.send("X", "15m", {"a": 1.0})
        next(stream)
    assert asked == [[1]]


def test_a_call_that_ends_with_its_token_goes_on_with_the_next_one(server):
    def revoked(call, place, _request, context):
        if (call, place) == (1, 2):
            abort(context, "UNAUTHENTICATED")

    tokens = iter(["old", "new"])
    asked = on_streams(server, revoked)
    with (
        SignalClient(server.target, token=lambda: next(tokens)) as client,
        client.stream(deadline_ms=LONG, reconnect=True) as stream,
    ):
        for n in range(3):
            stream.send("X", "15m", {"a": float(n)})
            assert next(stream).result().score == float(n)
    assert asked == [[1, 2], [2, 3]]
    assert next(tokens, None) is None


def test_an_answer_that_nobody_waits_for_breaks_this_stream_too(client):
    with pytest.raises(InternalError, match="OUT_OF_ORDER"), client.stream(reconnect=True) as stream:
        stream.send("SKEW", "15m", {"a": 1.0})
        next(stream)


def test_close_waits_for_the_answers_that_another_call_gives(client, server):
    on_streams(server, drain_twice)
    stream = client.stream(deadline_ms=LONG, reconnect=True)
    for n in range(COUNT):
        stream.send("X", "15m", {"a": float(n)})
    stream.close()
    assert scores(stream) == [float(n) for n in range(COUNT)]


def test_cancel_ends_a_stream_that_waits_for_a_server(client, server):
    server.stop()
    stream = client.stream(deadline_ms=LONG, reconnect=True)
    stream.send("X", "15m", {"a": 1.0})
    helper = threading.Thread(target=stream.cancel)
    helper.start()
    with pytest.raises(Cancelled):
        next(stream)
    helper.join()


async def test_cancel_ends_an_async_stream_that_waits_for_a_server(server):
    async with AsyncSignalClient(server.target) as client:
        stream = client.stream(deadline_ms=LONG, reconnect=True)
        await stream.send("X", "15m", {"a": 1.0})
        assert (await anext(stream)).ok
        await asyncio.to_thread(server.stop)
        sending = asyncio.create_task(stream.send("X", "15m", {"a": 1.0}))
        await asyncio.sleep(0)
        await stream.cancel()
        with pytest.raises(Cancelled):
            await anext(stream)
        await asyncio.gather(sending, return_exceptions=True)


def test_a_stream_of_a_closed_client_ends(server):
    client = SignalClient(server.target)
    stream = client.stream(deadline_ms=LONG, reconnect=True)
    stream.send("X", "15m", {"a": 1.0})
    assert next(stream).ok
    client.close()
    with pytest.raises(Cancelled):
        while True:
            stream.send("X", "15m", {"a": 1.0})
            next(stream)
    stream.close()


async def test_a_cancelled_send_costs_an_async_stream_nothing(server):
    def slow(call, place, request, _context):
        if call == 1 and place == 1:
            server.prediction.release.wait(60)

    on_streams(server, slow)
    async with (
        AsyncSignalClient(server.target) as client,
        client.stream(deadline_ms=LONG, reconnect=True) as stream,
    ):
        wide = {f"f{n}": 1.0 for n in range(4000)}
        sent = 0
        while True:  # until the connection takes no more
            sending = asyncio.create_task(stream.send("X", "15m", wide))
            done, _ = await asyncio.wait({sending}, timeout=0.3)
            sent += 1
            if not done:
                break
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        server.prediction.release.set()
        items = [await anext(stream) for _ in range(sent)]
    assert [item.sequence for item in items] == list(range(1, sent + 1))
    assert all(item.ok for item in items)
