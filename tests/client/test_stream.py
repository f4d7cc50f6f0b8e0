import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalserve.client import (
    AsyncSignalClient,
    Cancelled,
    DeadlineExceeded,
    InternalError,
    NotFound,
    ResourceExhausted,
    SignalClient,
    SignalServeError,
    Unavailable,
)
from signalserve.client.exchange import Exchange
from signalserve.v1.prediction_pb2 import PredictStreamRequest, PredictStreamResponse

LONG = 20_000


@pytest.fixture
def client(server):
    with SignalClient(server.target) as opened:
        yield opened


@pytest.fixture
def later(server):
    """A server that hangs is let go when the test ends."""
    yield
    server.prediction.release.set()


def test_answers_come_in_order_with_the_sequence_of_their_requests(client):
    with client.stream(deadline_ms=LONG) as stream:
        sent = [stream.send("X", "15m", {"a": float(n)}) for n in range(200)]
        stream.close()
        items = list(stream)
    assert sent == list(range(1, 201))
    assert [item.sequence for item in items] == sent
    assert [item.result().score for item in items] == [float(n) for n in range(200)]
    assert all(item.result().latency_ms > 0 for item in items)


def test_a_stream_plays_ping_pong(client):
    with client.stream(deadline_ms=LONG) as stream:
        for n in range(50):
            sequence = stream.send("X", "15m", {"a": float(n)})
            item = next(stream)
            assert (item.sequence, item.result().score) == (sequence, float(n))


def test_a_sequence_of_ones_own_is_kept_and_counted_on_from(client):
    with client.stream(deadline_ms=LONG) as stream:
        sent = [
            stream.send("X", "15m", {"a": 1.0}, sequence=40),
            stream.send("X", "15m", {"a": 1.0}),
            stream.send("X", "15m", {"a": 1.0}, sequence=0),
        ]
        stream.close()
        assert [item.sequence for item in stream] == sent == [40, 41, 0]
        assert [item.result().sequence for item in stream] == []


def test_a_bad_request_is_an_answer_and_the_stream_goes_on(client):
    with client.stream(deadline_ms=LONG) as stream:
        for symbol in ("X", "NOT_FOUND", "X"):
            stream.send(symbol, "15m", {"a": 1.0})
        with pytest.raises(TypeError):
            stream.send("X", "15m", {"a": "text"})
        stream.close()
        items = list(stream)
    assert [item.ok for item in items] == [True, False, True]
    assert [item.sequence for item in items] == [1, 2, 3]
    assert isinstance(items[1].error, NotFound)
    assert items[1].error.reason == "WHY_NOT_FOUND"


def test_many_threads_send_and_every_request_is_answered_once(client):
    with client.stream(deadline_ms=LONG, max_pending=32) as stream:
        sent: list[int] = []

        def work() -> None:
            for _ in range(100):
                sent.append(stream.send("X", "15m", {"a": 1.0}))  # noqa: PERF401  other threads append too

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        items = [next(stream) for _ in range(400)]
        for thread in threads:
            thread.join()
        stream.close()
        assert list(stream) == []
    assert [item.sequence for item in items] == list(range(1, 401)) == sorted(sent)


def test_a_reader_waits_for_another_threads_send_and_ends_at_its_close(client):
    with client.stream(deadline_ms=LONG) as stream:
        items: list[int] = []
        reader = threading.Thread(target=lambda: items.extend(item.sequence for item in stream))
        reader.start()
        for _ in range(10):
            stream.send("X", "15m", {"a": 1.0})
        stream.close()
        reader.join(30)
        assert not reader.is_alive()
        assert items == list(range(1, 11))


def test_a_full_stream_asks_to_read_and_goes_on_after(client):
    with client.stream(deadline_ms=300, max_pending=3) as stream:
        for _ in range(3):
            stream.send("X", "15m", {"a": 1.0})
        with pytest.raises(ResourceExhausted, match="read the answers while you send"):
            stream.send("X", "15m", {"a": 1.0})
        assert next(stream).sequence == 1
        assert stream.send("X", "15m", {"a": 1.0}) == 4
        stream.close()
        assert [item.sequence for item in stream] == [2, 3, 4]


def test_taking_an_answer_lets_a_waiting_sender_go_on(client):
    with client.stream(deadline_ms=10 * LONG, max_pending=1) as stream:
        stream.send("X", "15m", {"a": 1.0})
        sender = threading.Thread(target=stream.send, args=("X", "15m", {"a": 2.0}))
        sender.start()
        for _ in range(50):  # the sender comes to wait meanwhile; a later one passes too
            client.status()
        assert next(stream).sequence == 1
        sender.join(30)
        assert not sender.is_alive()
        assert next(stream).sequence == 2


async def test_taking_an_answer_lets_a_waiting_task_go_on(server):
    async with (
        AsyncSignalClient(server.target) as client,
        client.stream(deadline_ms=10 * LONG, max_pending=1) as stream,
    ):
        await stream.send("X", "15m", {"a": 1.0})
        sender = asyncio.create_task(stream.send("X", "15m", {"a": 2.0}))
        for _ in range(50):
            await client.status()
        assert (await anext(stream)).sequence == 1
        assert await asyncio.wait_for(sender, 30) == 2
        assert (await anext(stream)).sequence == 2


def test_leaving_the_block_closes_and_answers_stay_readable(client):
    with client.stream(deadline_ms=LONG) as stream:
        stream.send("X", "15m", {"a": 1.0})
    assert [item.sequence for item in stream] == [1]
    with pytest.raises(RuntimeError, match="stream is closed"):
        stream.send("X", "15m", {"a": 1.0})


@pytest.mark.parametrize("symbol", ["DRAIN", "END"])
def test_a_stream_that_the_server_ends_raises_on_both_sides_after_the_answers(client, symbol):
    with client.stream(deadline_ms=LONG) as stream:
        stream.send("X", "15m", {"a": 1.0})
        stream.send(symbol, "15m", {"a": 1.0})
        assert next(stream).sequence == 1
        for _ in range(2):
            with pytest.raises(Unavailable):
                next(stream)
            with pytest.raises(Unavailable):
                stream.send("X", "15m", {"a": 1.0})


def test_a_killed_server_breaks_the_stream_and_a_new_one_works_after_its_return(client, server):
    stream = client.stream(deadline_ms=LONG)
    stream.send("X", "15m", {"a": 1.0})
    assert next(stream).ok
    waiting: list[BaseException] = []

    def read() -> None:
        try:
            next(stream)
        except Unavailable as error:
            waiting.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    server.stop()
    reader.join(30)
    assert len(waiting) == 1
    with pytest.raises(Unavailable):
        stream.send("X", "15m", {"a": 1.0})
    stream.close()
    server.start()
    client.wait_ready(LONG)
    with client.stream(deadline_ms=LONG) as again:
        again.send("X", "15m", {"a": 2.0})
        assert next(again).result().score == 2.0


def test_a_stream_to_no_server_is_unavailable(client, server):
    server.stop()
    with client.stream(deadline_ms=LONG) as stream, pytest.raises(Unavailable):
        stream.send("X", "15m", {"a": 1.0})
        next(stream)


@pytest.mark.usefixtures("later")
def test_an_overdue_answer_breaks_the_stream_for_reading_sending_and_closing(client):
    with client.stream(deadline_ms=80) as stream:
        stream.send("HANG", "15m", {"a": 1.0})
        with pytest.raises(DeadlineExceeded, match="no answer to sequence 1 within 80 ms"):
            next(stream)
        with pytest.raises(DeadlineExceeded):
            stream.send("X", "15m", {"a": 1.0})
    with client.stream(deadline_ms=80) as stream:
        stream.send("HANG", "15m", {"a": 1.0})
    with pytest.raises(DeadlineExceeded):
        next(stream)


@pytest.mark.usefixtures("later")
def test_an_error_in_the_block_gives_the_stream_up_at_once(client):
    with pytest.raises(KeyError), client.stream(deadline_ms=10 * LONG) as stream:
        stream.send("HANG", "15m", {"a": 1.0})
        raise KeyError
    with pytest.raises(Cancelled):
        next(stream)


@pytest.mark.usefixtures("later")
def test_closing_the_client_ends_its_streams(server):
    client = SignalClient(server.target)
    stream = client.stream(deadline_ms=10 * LONG)
    stream.send("HANG", "15m", {"a": 1.0})
    client.close()
    with pytest.raises(SignalServeError):
        next(stream)
    stream.close()


def test_an_answer_out_of_order_breaks_the_stream(client):
    with client.stream(deadline_ms=LONG) as stream:
        stream.send("SKEW", "15m", {"a": 1.0})
        with pytest.raises(InternalError, match="answered sequence 2 where 1 was due"):
            next(stream)


def test_closed_given_up_and_broken_streams_leave_no_thread_behind(client):
    client.status()
    before = threading.active_count()
    for _ in range(5):
        with client.stream(deadline_ms=LONG) as stream:
            stream.send("X", "15m", {"a": 1.0})
        client.stream(deadline_ms=LONG).cancel()
        broken = client.stream(deadline_ms=LONG)
        broken.send("END", "15m", {"a": 1.0})
        with pytest.raises(Unavailable):
            next(broken)
    for _ in range(1000):  # gRPC's own threads end a moment later
        if threading.active_count() <= before + 2:
            break
        threading.Event().wait(0.01)
    assert threading.active_count() <= before + 2


async def test_the_async_stream_keeps_order_sequences_and_item_errors(server):
    async with AsyncSignalClient(server.target) as client:
        async with client.stream(deadline_ms=LONG, max_pending=16) as stream:

            async def work() -> None:
                for n in range(100):
                    await stream.send("NOT_FOUND" if n == 7 else "X", "15m", {"a": float(n)})

            sender = asyncio.create_task(work())
            items = [await anext(stream) for _ in range(100)]
            await sender
            assert await stream.send("X", "15m", {"a": 0.5}, sequence=900) == 900
            await stream.close()
            items += [item async for item in stream]
        assert [item.sequence for item in items] == [*range(1, 101), 900]
        assert [item.sequence for item in items if not item.ok] == [8]
        assert items[50].result().score == 50.0
        with pytest.raises(RuntimeError, match="stream is closed"):
            await stream.send("X", "15m", {"a": 1.0})


async def test_an_async_stream_that_breaks_raises_on_both_sides(server):
    async with AsyncSignalClient(server.target) as client:
        for symbol in ("DRAIN", "END"):
            async with client.stream(deadline_ms=LONG) as stream:
                await stream.send("X", "15m", {"a": 1.0})
                await stream.send(symbol, "15m", {"a": 1.0})
                assert (await anext(stream)).sequence == 1
                for _ in range(2):
                    with pytest.raises(Unavailable):
                        await anext(stream)
                    with pytest.raises(Unavailable):
                        await stream.send("X", "15m", {"a": 1.0})
        stream = client.stream(deadline_ms=LONG)
        await stream.send("X", "15m", {"a": 1.0})
        assert (await anext(stream)).ok
        waiting = asyncio.create_task(anext(stream))
        await asyncio.to_thread(server.stop)
        with pytest.raises(Unavailable):
            await waiting
        with pytest.raises(Unavailable):
            await stream.send("X", "15m", {"a": 1.0})
        await stream.close()
        async with client.stream(deadline_ms=LONG) as stream:
            with pytest.raises(Unavailable):
                await stream.send("X", "15m", {"a": 1.0})
                await anext(stream)


@pytest.mark.usefixtures("later")
async def test_an_overdue_async_answer_breaks_the_stream_and_a_full_one_asks_to_read(server):
    async with AsyncSignalClient(server.target) as client:
        async with client.stream(deadline_ms=300, max_pending=2) as stream:
            for _ in range(2):
                await stream.send("X", "15m", {"a": 1.0})
            with pytest.raises(ResourceExhausted):
                await stream.send("X", "15m", {"a": 1.0})
            assert (await anext(stream)).sequence == 1
        async with client.stream(deadline_ms=80) as stream:
            await stream.send("HANG", "15m", {"a": 1.0})
            with pytest.raises(DeadlineExceeded):
                await anext(stream)
            with pytest.raises(DeadlineExceeded):
                await stream.send("X", "15m", {"a": 1.0})


@pytest.mark.usefixtures("later")
async def test_a_cancelled_wait_harms_no_async_stream_and_an_error_gives_it_up(server):
    async with AsyncSignalClient(server.target) as client:
        async with client.stream(deadline_ms=LONG) as stream:
            waiting = asyncio.create_task(anext(stream))
            await client.status()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await stream.send("X", "15m", {"a": 3.0})
            assert (await anext(stream)).result().score == 3.0
        with pytest.raises(KeyError):
            async with client.stream(deadline_ms=10 * LONG) as stream:
                await stream.send("HANG", "15m", {"a": 1.0})
                raise KeyError
        with pytest.raises(Cancelled):
            await anext(stream)
        stream = client.stream(deadline_ms=10 * LONG)
        await stream.send("HANG", "15m", {"a": 1.0})
    with pytest.raises(Cancelled):
        await anext(stream)
    await stream.close()


@given(st.lists(st.sampled_from(["send", "answer", "take"]), max_size=60), st.integers(1, 5))
def test_an_exchange_never_holds_more_than_it_may_and_loses_nothing(steps, most):
    exchange = Exchange(most, 10.0)
    sent: list[int] = []
    answered = 0
    taken: list[int] = []
    for now, step in enumerate(steps):
        if step == "send":
            assert exchange.has_room() == (len(sent) - len(taken) < most)
            if exchange.has_room():
                sent.append(exchange.sent(PredictStreamRequest(), None, float(now)))
        elif step == "answer" and answered < len(sent):
            exchange.arrived(PredictStreamResponse(sequence=sent[answered]), float(now))
            answered += 1
        elif step == "take":
            item = exchange.take()
            assert (item is None) == (answered == len(taken))
            if item is not None:
                taken.append(item.sequence)
    exchange.fail(Unavailable("gone"))
    with pytest.raises(Unavailable):
        while (item := exchange.take()) is not None:
            taken.append(item.sequence)
    assert taken == sent[:answered]
