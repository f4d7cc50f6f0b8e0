import pytest

from signalserve.client import (
    AsyncSignalClient,
    LatencySummary,
    LatencyWindow,
    PredictionRequest,
    SignalClient,
)
from signalserve.client.errors import NotFound

LONG = 20_000


def test_what_was_answered_is_counted_and_what_failed_is_not(server):
    with SignalClient(server.target, deadline_ms=LONG) as client:
        assert client.latency() == LatencySummary(0, None, None)
        for _ in range(4):
            client.predict("X", "15m", {"a": 1.0})
        with pytest.raises(NotFound):
            client.predict("NOT_FOUND", "15m", {"a": 1.0})
        client.predict_batch([PredictionRequest("X", "15m", {"a": 1.0})] * 3)
        client.status()
        with client.stream() as stream:
            for symbol in ("X", "NOT_FOUND", "X"):
                stream.send(symbol, "15m", {"a": 1.0})
            stream.close()
        said = client.latency()
    assert said.count == 4 + 1 + 2
    assert 0.0 < said.p50_ms <= said.p99_ms


async def test_the_async_client_counts_likewise(server):
    async with AsyncSignalClient(server.target, deadline_ms=LONG) as client:
        await client.predict("X", "15m", {"a": 1.0})
        async with client.stream() as stream:
            await stream.send("X", "15m", {"a": 1.0})
            assert (await anext(stream)).ok
        assert client.latency().count == 2


def test_percentiles_are_of_the_newest_and_the_count_is_of_all():
    window = LatencyWindow(100)
    for value in range(300):
        window.add(float(value))
    assert window.summary() == LatencySummary(300, 249.0, 298.0)
