"""A client that asks over many streams, reads no answer, and stops in the middle of it (SIGSTOP to itself)."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator

import grpc

from benchmarks.soak.field import NAMES, TIMEFRAME, rows
from signalserve.v1 import prediction_pb2, prediction_service_pb2_grpc

STREAMS = 20
_MESSAGES = 400


def main() -> None:
    """Open the streams to `sys.argv[1]`, say how many, and stop."""
    values = rows().ravel().tolist()
    request = prediction_pb2.PredictRequest(
        symbol="S0", timeframe=TIMEFRAME, feature_names=NAMES, values=values
    )
    gate = threading.Event()

    def questions() -> Iterator[prediction_pb2.PredictStreamRequest]:
        for _ in range(_MESSAGES):
            yield prediction_pb2.PredictStreamRequest(request=request)
        gate.wait()

    with grpc.insecure_channel(sys.argv[1]) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        streams = [stub.PredictStream(questions()) for _ in range(STREAMS)]
        for stream in streams:
            next(stream)  # it is open: from here on nothing is read
        print(len(streams), flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)
        gate.set()


if __name__ == "__main__":
    main()
