"""MLServer as a peer: the same fitted model and the same row over its own gRPC protocol (open inference v2).

It runs from an environment of its own, which `make bench` builds from `benchmarks/mlserver.txt`.
"""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import joblib

from benchmarks.setting import training_data

HOME = Path("build/mlserver")
METHOD = "/inference.GRPCInferenceService/ModelInfer"
_START_SECONDS = 60.0
_IMPLEMENTATIONS = {"rf": "mlserver_sklearn.SKLearnModel", "xgb": "mlserver_xgboost.XGBoostModel"}

# its messages are known to its own environment alone
_WRITE_REQUEST = """
import sys, numpy
from mlserver.grpc import dataplane_pb2 as pb
row = [float(text) for text in sys.argv[2].split()]
request = pb.ModelInferRequest(model_name="peer")
tensor = request.inputs.add(name="X", datatype="FP64", shape=[1, len(row)])
tensor.contents.fp64_contents.extend(row)
request.outputs.add(name="predict_proba")
open(sys.argv[1], "wb").write(request.SerializeToString())
"""


def installed() -> bool:
    """Whether the peer's environment is there."""
    return (HOME / "bin" / "mlserver").exists()


@contextmanager
def mlserver(folder: Path, template: Path, kind: str) -> Iterator[tuple[str, bytes]]:
    """Serve a template's model for the length of the block: (target, the request's bytes).

    Raises:
        RuntimeError: it did not answer in time; the message has the end of what it printed.
    """
    folder.mkdir()
    model = folder / ("model.joblib" if kind == "rf" else "model.json")
    if kind == "rf":
        model.write_bytes((template / "model.joblib").read_bytes())
    else:
        joblib.load(template / "model.joblib").save_model(model)
    http_port, grpc_port, metrics_port = _free_ports(3)
    _write(
        folder / "settings.json",
        {
            "debug": False,
            "host": "127.0.0.1",
            "http_port": http_port,
            "grpc_port": grpc_port,
            "metrics_port": metrics_port,
            "parallel_workers": 0,  # one process, as ours is
        },
    )
    _write(
        folder / "model-settings.json",
        {
            "name": "peer",
            "implementation": _IMPLEMENTATIONS[kind],
            "parameters": {"uri": str(model.resolve())},
        },
    )
    request = folder / "request.bin"
    row = " ".join(map(str, training_data(1)[0][0]))
    subprocess.run(
        [HOME / "bin" / "python", "-c", _WRITE_REQUEST, request, row],
        check=True,
        stderr=subprocess.DEVNULL,
    )
    with (folder / "output.txt").open("wb") as output:
        process = subprocess.Popen(
            [(HOME / "bin" / "mlserver").resolve(), "start", "."],
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            target, content = f"127.0.0.1:{grpc_port}", request.read_bytes()
            _wait_until_answers(target, content, process, folder / "output.txt")
            yield target, content
        finally:
            process.terminate()
            process.wait()


def _wait_until_answers(target: str, content: bytes, process: subprocess.Popen[bytes], output: Path) -> None:
    until = time.monotonic() + _START_SECONDS
    with grpc.insecure_channel(target) as channel:
        infer = channel.unary_unary(METHOD)
        while True:
            try:
                infer(content, timeout=5)
            except grpc.RpcError as error:
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"MLServer does not answer:\n{output.read_text()[-2000:]}") from error
                time.sleep(0.2)
            else:
                return


def _write(path: Path, values: dict[str, object]) -> None:
    path.write_text(json.dumps(values))


def _free_ports(count: int) -> list[int]:
    holders = [socket.socket() for _ in range(count)]
    try:
        for holder in holders:
            holder.bind(("127.0.0.1", 0))
        return [holder.getsockname()[1] for holder in holders]
    finally:
        for holder in holders:
            holder.close()
