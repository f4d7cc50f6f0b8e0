import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr == ""
    return done.stdout


def test_the_client_needs_the_stubs_grpc_protobuf_and_numpy_alone():
    loaded = set(
        json.loads(run("import sys, json, signalserve.client; print(json.dumps(list(sys.modules)))"))
    )
    ours = {name.split(".")[1] for name in loaded if name.startswith("signalserve.")}
    assert ours == {"client", "v1"}
    assert not loaded & {"pandas", "sklearn", "onnxruntime", "pydantic", "yaml", "grpc_status"}
    assert {"grpc", "numpy"} <= loaded


def test_a_program_that_forgets_to_close_its_stream_still_ends(server):
    program = f"""
from signalserve.client import SignalClient
client = SignalClient({server.target!r})
stream = client.stream(deadline_ms=20_000)
stream.send("X", "15m", {{"a": 0.5}})
print(next(stream).result().score)
"""
    assert run(program) == "0.5\n"


def test_an_asyncio_program_that_forgets_to_close_its_stream_still_ends(server):
    program = f"""
import asyncio
from signalserve.client import AsyncSignalClient
async def main():
    client = AsyncSignalClient({server.target!r})
    stream = client.stream(deadline_ms=20_000)
    await stream.send("X", "15m", {{"a": 0.5}})
    print((await anext(stream)).result().score)
asyncio.run(main())
"""
    assert run(program) == "0.5\n"
