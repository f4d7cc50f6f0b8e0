"""The light client's wheel: what is in it, what it asks for, and that it needs nothing else."""

import json
import os
import subprocess
import sys
import zipfile
from email.parser import Parser

import pytest
from google.rpc import status_pb2

import signalserve
from signalserve.client import errors
from signalserve.v1 import rpc_status
from tests.wheels import ROOT, build_wheel

# what is neither the language's own nor asked for by the wheel can't be imported here
ALONE = """
import sys
ALLOWED = {"grpc", "google", "numpy", "typing_extensions", "signalserve", *sys.stdlib_module_names}
class Nothing:
    def find_spec(self, name, path=None, target=None):
        parts = name.split(".")
        rest = parts[0] == "google" and parts[1:2] not in ([], ["protobuf"], ["_upb"])
        if parts[0] not in ALLOWED or rest:
            raise ImportError(f"{name} is not there")
sys.meta_path.insert(0, Nothing())
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build_wheel(tmp_path_factory.mktemp("client"), "deploy/client")


@pytest.fixture(scope="module")
def unpacked(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unpacked")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def alone(program, unpacked, **environment):
    done = subprocess.run(
        [sys.executable, "-c", ALONE + program],
        cwd=unpacked,
        env={**os.environ, "PYTHONPATH": str(unpacked), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_the_wheel_holds_the_client_and_the_stubs_alone(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    sources = ROOT / "signalserve"
    expected = {
        f"signalserve/{path.relative_to(sources)}"
        for folder in ("client", "v1")
        for path in (sources / folder).iterdir()
        if path.suffix in (".py", ".pyi")
    }
    assert names == expected | {"signalserve/__init__.py", "signalserve/py.typed"}


def test_the_wheel_asks_for_grpcio_numpy_and_protobuf_and_has_the_version_of_the_server(wheel):
    (name,) = (name for name in zipfile.ZipFile(wheel).namelist() if name.endswith("/METADATA"))
    metadata = Parser().parsestr(zipfile.ZipFile(wheel).read(name).decode())
    assert metadata["Name"] == "signalserve-client"
    assert metadata["Version"] == signalserve.__version__
    needs = metadata.get_all("Requires-Dist")
    assert [need.partition(">=")[0] for need in needs] == ["grpcio", "numpy", "protobuf"]
    both = (ROOT / "pyproject.toml").read_text()
    assert all(f'    "{need}",' in both for need in needs)  # the same versions as the whole package


@pytest.mark.parametrize("protobuf", ["upb", "python"])
def test_the_wheel_alone_predicts_and_tells_errors_with_all_their_details(unpacked, server, protobuf):
    program = f"""
import json
import signalserve.client as library
with library.SignalClient({server.target!r}, deadline_ms=20_000) as client:
    told = []
    for symbol in ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "NOT_FOUND"):
        try:
            client.predict(symbol, "15m", {{"a": 1.0}})
        except library.SignalServeError as error:
            told.append([type(error).__name__, error.reason, error.domain, error.metadata, error.field_violations,
                         error.retry_after, error.request_id])
    items = client.predict_batch([library.PredictionRequest(s, "15m", {{"a": 0.5}}) for s in ("X", "ABORTED")])
    print(json.dumps({{
        "from": library.__file__,
        "score": client.predict("X", "15m", {{"a": 0.5}}).score,
        "told": told,
        "batch": [items[0].result().score, items[1].error.reason],
        "borrowed": [name for name in sys.modules if name.startswith(("google.rpc", "grpc_status"))],
    }}))
"""
    said = alone(program, unpacked, PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=protobuf)
    metadata = {"key": "X/15m", "request_id": "r-7"}
    assert said == {
        "from": str(unpacked / "signalserve/client/__init__.py"),
        "score": 0.5,
        "told": [
            [
                "InvalidArgument",
                "WHY_INVALID_ARGUMENT",
                "signalserve",
                metadata,
                [["values", "wrong width"]],
                None,
                "r-7",
            ],
            ["ResourceExhausted", "WHY_RESOURCE_EXHAUSTED", "signalserve", metadata, [], 1.5, "r-7"],
            ["NotFound", "WHY_NOT_FOUND", "signalserve", metadata, [], None, "r-7"],
        ],
        "batch": [0.5, "WHY_ABORTED"],
        "borrowed": [],
    }


def test_a_status_that_another_library_brought_is_used(unpacked):
    program = f"""
import json
from google.protobuf import any_pb2, descriptor_pool
descriptor_pool.Default().AddSerializedFile({status_pb2.DESCRIPTOR.serialized_pb!r})
from signalserve.v1 import prediction_pb2
from signalserve.v1.rpc_status import Status
result = prediction_pb2.PredictBatchResult(error=Status(code=5, message="gone"))
print(json.dumps([result.error.code, Status.DESCRIPTOR.file.GetOptions().java_package]))
"""
    assert alone(program, unpacked) == [5, "com.google.rpc"]


def test_an_installed_status_is_the_status_of_the_stubs():
    assert rpc_status.Status is status_pb2.Status
    assert errors.Status is status_pb2.Status
