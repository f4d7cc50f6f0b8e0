"""The guard admits calls, knows who asks, and counts what becomes of them, without a channel."""

from __future__ import annotations

import asyncio

import pytest

from signalserve.server.errors import DrainingError, OverloadedError
from signalserve.server.guard import Call, Caller, CallGuard, StreamCall
from signalserve.server.metrics import RpcCounts, ServerMetrics


class Carrier:
    """What a protocol would bring: a deadline and an address."""

    identified = 0

    def time_remaining(self) -> float | None:
        return 1.5


def identify(carrier: Carrier) -> Caller:
    carrier.identified += 1
    return Caller("ipv4:10.0.0.7:4711", "ops")


def counted(metrics: ServerMetrics) -> dict[tuple[str, ...], int]:
    """What was counted under an RPC's name: (metric, rpc) or (metric, rpc, code)."""
    return {
        (sample.name.removeprefix("signalserve_"), *sample.labels.values()): int(sample.value)
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.value and "rpc" in sample.labels and not sample.name.endswith("_created")
    }


def call_of(counts: RpcCounts) -> Call:
    return Call(counts, Carrier(), identify)


def test_each_rpc_counts_its_own_answers_and_refusals() -> None:
    metrics = ServerMetrics()
    guard = CallGuard(2, metrics.counts)
    predict, batch = guard.counts("Predict"), guard.counts("PredictBatch")
    assert metrics.registry.get_sample_value("signalserve_answers_total", {"rpc": "Predict"}) == 0
    call_of(predict).answered()
    for code in ("NOT_FOUND", "NOT_FOUND", "INTERNAL"):
        call_of(predict).refused(code)
    items = call_of(batch)
    assert not items.counted
    for _ in range(3):
        items.answered()
    items.refused("NOT_FOUND")
    assert items.counted
    assert counted(metrics) == {
        ("answers_total", "Predict"): 1,
        ("answers_total", "PredictBatch"): 3,
        ("refusals_total", "Predict", "NOT_FOUND"): 2,
        ("refusals_total", "Predict", "INTERNAL"): 1,
        ("refusals_total", "PredictBatch", "NOT_FOUND"): 1,
    }


def test_a_call_says_its_time_and_its_caller_who_is_looked_for_only_when_asked() -> None:
    carrier = Carrier()
    call = Call(ServerMetrics().counts("Promote"), carrier, identify)
    assert call.remaining() == 1.5
    assert carrier.identified == 0
    assert str(call.caller) == "ops (unverified, ipv4:10.0.0.7:4711)"
    assert str(Caller("ipv4:10.0.0.7:4711")) == "ipv4:10.0.0.7:4711"


async def test_a_full_guard_admits_no_more_until_a_call_ends() -> None:
    guard = CallGuard(2, ServerMetrics().counts)
    guard.begin()
    guard.begin()
    with pytest.raises(OverloadedError, match="2 calls") as caught:
        guard.begin()
    assert caught.value.retry_seconds == 0.05
    guard.end()
    guard.begin()
    assert guard.in_flight == 2


async def test_a_drain_admits_nothing_and_ends_with_the_last_call_and_the_last_stream() -> None:
    guard = CallGuard(2, ServerMetrics().counts)
    guard.begin()
    stream = StreamCall(guard, guard.counts("PredictStream"), Carrier(), identify)
    guard.open(stream)
    waiting = asyncio.create_task(stream.wait_for(asyncio.Event().wait()))
    await asyncio.sleep(0)
    guard.drain()
    empty = asyncio.create_task(guard.wait_until_empty())
    assert await waiting is None  # the drain woke it
    late = StreamCall(guard, guard.counts("PredictStream"), Carrier(), identify)
    for admit in (guard.begin, lambda: guard.open(late)):
        with pytest.raises(DrainingError, match="another one"):
            admit()
    guard.close(stream)
    assert not empty.done()
    guard.end()
    await empty
