"""The peer: a bare grpc.aio server that parses a PredictRequest and answers one of the usual size."""

from __future__ import annotations

import asyncio
import sys
import time

import grpc
import uvloop

from signalserve.server.wire.prediction import set_time
from signalserve.v1 import prediction_pb2, prediction_service_pb2_grpc


class Echo(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Answers without a model."""

    async def Predict(self, request, context):  # type: ignore[no-untyped-def]  # noqa: N802
        """Answer a message of the same size as a real one."""
        response = prediction_pb2.PredictResponse(
            scores=[0.5],
            model_id="BTCUSDT_15m_rf_20260101_000000",
            model_digest="0" * 64,
            registry_revision=1,
            schema_hash="0" * 64,
            sequence=request.sequence,
        )
        set_time(response.served_time, time.time_ns())
        return response


async def main() -> None:
    """Serve on a free port and print it."""
    server = grpc.aio.server()
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Echo(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"ready on 127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    if sys.platform == "win32":
        asyncio.run(main())
    else:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())
