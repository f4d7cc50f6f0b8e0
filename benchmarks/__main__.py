"""`make bench`: prints each target of the design, what was measured, and whether it holds."""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median

import grpc
import numpy as np
import onnxruntime
from rich.console import Console

from benchmarks import access, gate, lab, loop, mlserver_peer, registry, retrain
from benchmarks.setting import (
    NAMES,
    ServerProcess,
    register_copy,
    registry_of,
    sealed_template,
    server_process,
    signalserve_process,
    training_data,
)
from signalserve.client import AsyncSignalClient, PredictionRequest
from signalserve.config.logs import configure_logs
from signalserve.config.settings import LoggingSettings
from signalserve.predictors.engine import open_session
from signalserve.predictors.schema import schema_hash
from signalserve.v1 import prediction_pb2, prediction_service_pb2_grpc

console = Console(highlight=False)


def report(name: str, ratio: float, limit: float, detail: str, *, at_least: bool = False) -> None:
    """One line a target."""
    holds = ratio >= limit if at_least else ratio <= limit
    bound = "at least" if at_least else "at most"
    mark = "[green]holds[/]" if holds else "[red]MISSED[/]"
    console.print(f"{mark}  {name}: {ratio:.2f} x, target {bound} {limit:g} x  ({detail})", soft_wrap=True)


async def timed_calls(
    call: Callable[[], Awaitable[object]], count: int, flying: int
) -> tuple[list[float], float]:
    """Latencies in seconds of `count` calls with `flying` in flight, and the whole time."""
    latencies: list[float] = []
    left = count

    async def caller() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            began = time.perf_counter()
            await call()
            latencies.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(flying)))
    return latencies, time.perf_counter() - began


def one_row(symbol: str = "S0") -> prediction_pb2.PredictRequest:
    """One row of 40 features, by schema hash."""
    row = training_data(1)[0][0]
    return prediction_pb2.PredictRequest(
        symbol=symbol, timeframe="15m", schema_hash=schema_hash(NAMES), values=row.tolist()
    )


async def unary_cost(server: ServerProcess, calls: int) -> tuple[float, float, float]:
    """(server CPU a call in microseconds, p50 in ms with one caller, calls a second with 16)."""
    async with grpc.aio.insecure_channel(server.target) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        request = one_row()
        await timed_calls(lambda: stub.Predict(request), 300, 4)
        alone, _ = await timed_calls(lambda: stub.Predict(request), calls // 2, 1)
        before = server.cpu_seconds()
        _, seconds = await timed_calls(lambda: stub.Predict(request), calls, 16)
        cpu = (server.cpu_seconds() - before) / calls * 1e6
    return cpu, median(alone) * 1e3, calls / seconds


async def stream_p50(server: ServerProcess, calls: int) -> float:
    """p50 in ms of a ping-pong over one stream."""
    async with grpc.aio.insecure_channel(server.target) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        stream = stub.PredictStream()
        message = prediction_pb2.PredictStreamRequest(request=one_row())

        async def ping() -> None:
            await stream.write(message)
            await stream.read()

        latencies, _ = await timed_calls(ping, calls, 1)
        await stream.done_writing()
    return median(latencies) * 1e3


async def unary(work: Path, kind: str, calls: int) -> None:
    """Targets 1 and 2."""
    base = work / f"one_{kind}"
    registry_of(base, sealed_template(work / f"template_{kind}", kind), kind, ["S0"])
    with (
        server_process(["benchmarks.echo_server"]) as echo,
        server_process(signalserve_process(base)) as ours,
    ):
        rounds = [(await unary_cost(echo, calls), await unary_cost(ours, calls)) for _ in range(3)]
        echo_cpu, our_cpu = median(r[0][0] for r in rounds), median(r[1][0] for r in rounds)
        report(
            f"1. {kind}, one row: server CPU against a bare echo",
            our_cpu / echo_cpu,
            1.35,
            f"{our_cpu:.0f} us against {echo_cpu:.0f} us a call; {median(r[1][2] for r in rounds):,.0f} calls/s "
            f"against {median(r[0][2] for r in rounds):,.0f} with 16 callers",
        )
        unary_p50 = median(r[1][1] for r in rounds)
        streamed = median([await stream_p50(ours, calls // 2) for _ in range(3)])
        report(
            f"2. {kind}, stream ping-pong p50 against unary p50",
            streamed / unary_p50,
            0.6,
            f"{streamed:.3f} ms against {unary_p50:.3f} ms",
        )


async def against_mlserver(work: Path, kind: str, target: float) -> None:
    """Target 1's second half: calls a second with 16 callers, ours against MLServer's."""
    with mlserver_peer.mlserver(work / f"mlserver_{kind}", work / f"template_{kind}", kind) as (
        peer,
        content,
    ):
        async with grpc.aio.insecure_channel(peer) as channel:
            infer = channel.unary_unary(mlserver_peer.METHOD)
            await timed_calls(lambda: infer(content), 20, 4)
            _, seconds = await timed_calls(lambda: infer(content), 200, 16)
    theirs = 200 / seconds
    with server_process(signalserve_process(work / f"one_{kind}")) as ours:
        _, _, rate = await unary_cost(ours, 2000)
    report(
        f"1. {kind}, one row: calls a second against MLServer",
        rate / theirs,
        target,
        f"{rate:,.0f} against {theirs:,.0f} with 16 callers",
        at_least=True,
    )


async def many_keys(work: Path, keys: int) -> None:
    """Targets 3, 5 and 6."""
    base, template = work / "many", work / "template_rf"
    symbols = [f"S{number}" for number in range(keys)]
    registry_of(base, template, "rf", symbols)
    X = training_data(keys)[0]
    content = (template / "model.onnx").read_bytes()
    sessions = [open_session(content) for _ in range(keys)]
    singles = [row.reshape(1, -1).astype(np.float32) for row in X]
    began = time.perf_counter()
    with server_process(signalserve_process(base)) as ours:
        console.print(
            f"       6. {keys} keys ready after {time.perf_counter() - began:.1f} s, "
            f"{ours.resident_mb() / keys:.2f} MB resident a key (base included)"
        )
        async with AsyncSignalClient(ours.target, deadline_ms=60_000) as client:
            requests = [
                PredictionRequest(symbol, "15m", row, schema_hash=schema_hash(NAMES))
                for symbol, row in zip(symbols, X, strict=True)
            ]
            batch = prediction_pb2.PredictBatchRequest(requests=[item.to_proto() for item in requests])
            async with grpc.aio.insecure_channel(
                ours.target, options=[("grpc.max_receive_message_length", -1)]
            ) as channel:
                stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
                bursts, loops, calls = [], [], []
                for _ in range(5):
                    began = time.perf_counter()
                    for session, row in zip(sessions, singles, strict=True):
                        run_one(session, row)
                    loops.append(time.perf_counter() - began)
                    began = time.perf_counter()
                    answer = await stub.PredictBatch(batch)
                    bursts.append(time.perf_counter() - began)
                    assert all(result.HasField("response") for result in answer.results)
                    queue = iter(batch.requests)
                    _, seconds = await timed_calls(lambda queue=queue: stub.Predict(next(queue)), keys, 16)
                    calls.append(seconds)
            detail = f"{median(bursts) * 1e3:.0f} ms for {keys} keys"
            report(
                "3. batch against an in-process loop",
                median(bursts) / median(loops),
                1.5,
                f"{detail} against {median(loops) * 1e3:.0f} ms",
            )
            report(
                "3. unary calls, 16 in flight, against the batch",
                median(calls) / median(bursts),
                3.0,
                f"{median(calls) * 1e3:.0f} ms",
                at_least=True,
            )
            await swaps(client, base, template, symbols[:100], X[0])


def run_one(session: onnxruntime.InferenceSession, row: np.ndarray) -> None:
    """One row through ONNX Runtime."""
    session.run(None, {"X": row})


async def swaps(
    client: AsyncSignalClient, base: Path, template: Path, symbols: list[str], row: np.ndarray
) -> None:
    """Target 5: promotes under load."""
    seconds = [register_copy(template, base, symbol, 2, "rf") for symbol in symbols]
    latencies: list[float] = []
    failed = 0
    running = True

    async def load() -> None:
        nonlocal failed
        number = 0
        while running:
            number += 1
            began = time.perf_counter()
            try:
                await client.predict(
                    symbols[number % len(symbols)], "15m", row, schema_hash=schema_hash(NAMES)
                )
            except Exception:  # noqa: BLE001 - counted, whatever it is
                failed += 1
            latencies.append(time.perf_counter() - began)

    async def measure(work: Awaitable[object]) -> float:
        latencies.clear()
        await work
        return float(np.percentile(latencies, 99)) * 1e3

    loads = [asyncio.create_task(load()) for _ in range(4)]
    quiet = await measure(asyncio.sleep(3))
    delays: list[float] = []

    async def promote_all() -> None:
        for model_id in seconds:
            began = time.perf_counter()
            result = await client.promote(model_id, reason="benchmark")
            assert result.served
            delays.append((time.perf_counter() - began) * 1e3)

    busy = await measure(promote_all())
    running = False
    await asyncio.gather(*loads)
    report(
        f"5. p99 during {len(seconds)} promotes against p99 without",
        busy / quiet,
        1.5,
        f"{busy:.1f} ms against {quiet:.1f} ms; {failed} failed calls; promote to served p50 {median(delays):.0f} ms",
    )


async def matrix(work: Path) -> None:
    """Target 4."""
    base, rows, chunk = work / "one_rf", 20_000, 5_000
    X = training_data(rows)[0]
    session = open_session((work / "template_rf" / "model.onnx").read_bytes())
    began = time.perf_counter()
    session.run(None, {"X": X.astype(np.float32)})
    in_process = time.perf_counter() - began
    with server_process(signalserve_process(base)) as ours:
        async with AsyncSignalClient(ours.target, deadline_ms=120_000) as client:
            began = time.perf_counter()
            for start in range(0, rows, chunk):
                await client.predict("S0", "15m", X[start : start + chunk], schema_hash=schema_hash(NAMES))
            over_grpc = time.perf_counter() - began
    report(
        "4. matrix, rows a second against in-process ONNX Runtime",
        in_process / over_grpc,
        0.8,
        f"{rows} rows x 40: {over_grpc:.2f} s against {in_process:.2f} s",
        at_least=True,
    )


async def run(calls: int, keys: int) -> None:
    """All of them, in the design's numbering."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        await unary(work, "rf", calls)
        await unary(work, "xgb", calls)
        if mlserver_peer.installed():
            await against_mlserver(work, "rf", 50)
            await against_mlserver(work, "xgb", 5)
        else:
            console.print(
                f"       1. MLServer is not in {mlserver_peer.HOME} (`make bench` installs it): left out"
            )
        await matrix(work)
        await many_keys(work, keys)


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=4000, help="calls a measurement of one row")
    parser.add_argument("--keys", type=int, default=1000, help="keys of the bar-close burst")
    parser.add_argument(
        "--only",
        choices=["serving", "loop", "access", "lab", "retrain", "registry", "gate"],
        help="one of the parts; default all",
    )
    options = parser.parse_args()
    configure_logs(LoggingSettings(level="warning"))
    # the models of a benchmark have no evidence, and their servers inherit this
    os.environ["SIGNALSERVE__PROMOTION__GATE"] = "none"
    if options.only in (None, "serving"):
        asyncio.run(run(options.calls, options.keys))
    if options.only in (None, "loop"):
        loop.run(keys=min(options.keys, 200))
    if options.only in (None, "access"):
        access.run()
    if options.only in (None, "lab"):
        lab.run()
    if options.only in (None, "retrain"):
        retrain.run(symbols=20, bars=3000)
    if options.only in (None, "registry"):
        registry.run()
    if options.only == "gate":  # shares and no speed, and minutes of them
        gate.run()


if __name__ == "__main__":
    main()
