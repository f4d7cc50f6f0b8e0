"""How long the server's event loop, and so health, is held up by large messages."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from time import perf_counter, sleep

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rich.console import Console

from benchmarks.setting import FEATURES, NAMES, registry_of, sealed_template, training_data
from signalserve.predictors.schema import schema_hash
from signalserve.v1 import (
    prediction_pb2,
    prediction_service_pb2_grpc,
    registry_pb2,
    registry_service_pb2_grpc,
    serving_status_pb2,
)

_ROUNDS = 15
_LIMIT_MS = 2.0
# between two questions of health: without a pause they alone would keep a core busy
_PROBE_SECONDS = 0.005
_UNBOUNDED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]

console = Console(highlight=False)


def run(keys: int) -> None:
    """Print the loop's and health's largest delays, of so many keys."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        symbols = [f"S{number}" for number in range(keys)]
        registry_of(work / "models", sealed_template(work / "template", "rf"), "rf", symbols)
        command = [sys.executable, "-m", "benchmarks.loop_server", str(work / "models")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
            try:
                _measure(server, symbols)
            finally:
                server.terminate()


def _measure(server: subprocess.Popen[str], symbols: list[str]) -> None:
    if server.stdin is None or server.stdout is None:
        raise RuntimeError("the server has no pipes")
    target = server.stdout.readline().removeprefix("ready on ").strip()
    ours, theirs = get_context("spawn").Pipe()
    prober = get_context("spawn").Process(target=_probe, args=(target, theirs), daemon=True)
    prober.start()

    def largest_block() -> float:
        print(file=server.stdin, flush=True)
        return float(server.stdout.readline() if server.stdout else "nan")

    def largest_health() -> float:
        ours.send(None)
        return float(ours.recv())

    largest_health()  # it has begun
    with ours, grpc.insecure_channel(target, _UNBOUNDED) as channel:
        for name, call in _calls(channel, symbols):
            for _ in range(3):
                call()
            blocks, healths, seconds = [], [], []
            for _ in range(_ROUNDS):
                largest_block(), largest_health()
                began = perf_counter()
                call()
                seconds.append(perf_counter() - began)
                healths.append(largest_health())
                blocks.append(largest_block())
            mark = "[green]holds[/]" if median(blocks) <= _LIMIT_MS else "[red]MISSED[/]"
            console.print(
                f"{mark}  7. {name}: the loop is held up for {median(blocks):.1f} ms at most ({max(blocks):.1f} in the "
                f"worst of {_ROUNDS} rounds), health answers within {median(healths):.1f} ms ({max(healths):.1f}); the "
                f"call takes {median(seconds) * 1e3:.1f} ms",
                soft_wrap=True,
            )
    prober.join()


def _calls(channel: grpc.Channel, symbols: list[str]) -> list[tuple[str, Callable[[], object]]]:
    prediction = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    registry = registry_service_pb2_grpc.RegistryServiceStub(channel)
    X = training_data(20_000)[0]

    def matrix(rows: int) -> Callable[[], object]:
        message = prediction_pb2.PredictRequest(
            symbol="S0", timeframe="15m", schema_hash=schema_hash(NAMES), values=X[:rows].ravel()
        )
        return lambda: prediction.Predict(message)

    def batch(count: int) -> Callable[[], object]:
        message = prediction_pb2.PredictBatchRequest(
            requests=[
                prediction_pb2.PredictRequest(
                    symbol=symbols[number % len(symbols)],
                    timeframe="15m",
                    feature_names=NAMES,
                    values=X[number],
                )
                for number in range(count)
            ]
        )
        return lambda: prediction.PredictBatch(message)

    small = prediction_pb2.PredictRequest(
        symbol="S0", timeframe="15m", schema_hash=schema_hash(NAMES), values=X[0]
    )
    return [
        ("one row", lambda: prediction.Predict(small)),
        ("batch of 1,000", batch(1_000)),
        ("batch of 10,000", batch(10_000)),
        ("8,192 values", matrix(8_192 // FEATURES)),
        ("20,000 rows", matrix(20_000)),
        (f"status of {len(symbols)} keys", _status(prediction)),
        (
            f"list of {len(symbols)} models",
            lambda: registry.ListModels(registry_pb2.ListModelsRequest(page_size=1000)),
        ),
    ]


def _status(prediction: prediction_service_pb2_grpc.PredictionServiceStub) -> Callable[[], object]:
    return lambda: prediction.GetServingStatus(serving_status_pb2.GetServingStatusRequest())


def _probe(target: str, pipe: Connection) -> None:
    """Ask health again and again, with pauses; sends the largest latency in milliseconds when asked to."""
    largest = 0.0
    with grpc.insecure_channel(target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        asked = health_pb2.HealthCheckRequest()
        while True:
            began = perf_counter()
            stub.Check(asked)
            largest = max(largest, perf_counter() - began)
            sleep(_PROBE_SECONDS)
            if pipe.poll():
                try:
                    pipe.recv()
                except EOFError:
                    return
                pipe.send(largest * 1e3)
                largest = 0.0
