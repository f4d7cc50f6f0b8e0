import shutil
import subprocess
import threading
from collections import Counter

import grpc
import numpy as np
import pytest

from signalserve.client import (
    AsyncSignalClient,
    DeadlineExceeded,
    InternalError,
    PredictionRequest,
    SignalClient,
    Tls,
    Unavailable,
)
from signalserve.client.channel import service_config

LONG = 20_000
ROW = {"a": 1.0}


def until_it_answers(client, attempts=2000):
    """Call again and again, each failure being one that a caller has to expect while the server is away."""
    for _ in range(attempts):
        try:
            return client.predict("X", "15m", ROW, deadline_ms=250)
        except (Unavailable, DeadlineExceeded):
            threading.Event().wait(0.01)
    raise AssertionError("the server never answered again")


def test_a_prediction_is_repeated_when_the_server_was_unavailable(server):
    with SignalClient(server.target, deadline_ms=LONG) as client:
        assert client.predict("FLAKY", "15m", ROW).score == 1.0
    assert server.prediction.calls["Predict"] == 3


def test_repeats_of_a_prediction_end_after_five_attempts(server):
    with SignalClient(server.target, deadline_ms=LONG) as client, pytest.raises(Unavailable):
        client.predict("UNAVAILABLE", "15m", ROW)
    assert server.prediction.calls["Predict"] == 5


@pytest.mark.parametrize("code", ["INTERNAL", "ABORTED", "DEADLINE_EXCEEDED", "INVALID_ARGUMENT", "UNKNOWN"])
def test_no_other_code_is_repeated(server, code):
    with SignalClient(server.target, deadline_ms=LONG) as client, pytest.raises(Exception, match=code):
        client.predict(code, "15m", ROW)
    assert server.prediction.calls["Predict"] == 1


@pytest.mark.parametrize("method", ["Promote", "Rollback", "Archive"])
def test_a_repeated_change_carries_the_same_request_id(server, method):
    server.registry.busy = 2
    with SignalClient(server.target) as client:
        call = {
            "Promote": lambda: client.promote("m"),
            "Rollback": lambda: client.rollback("X/15m", "why"),
            "Archive": lambda: client.archive("m", "why"),
        }[method]
        result = call()
    assert server.registry.calls[method] == 3
    assert {request.request_id for request in server.registry.requests} == {result.request_id}


async def test_the_async_client_repeats_likewise(server):
    server.registry.busy = 1
    async with AsyncSignalClient(server.target, deadline_ms=LONG) as client:
        await client.promote("m")
        with pytest.raises(Unavailable):
            await client.predict("UNAVAILABLE", "15m", ROW)
        with pytest.raises(InternalError):
            await client.predict("INTERNAL", "15m", ROW)
    assert server.registry.calls["Promote"] == 2
    assert server.prediction.calls["Predict"] == 5 + 1


def test_streams_and_watches_are_never_repeated_by_policy():
    named = {entry["method"] for config in service_config()["methodConfig"] for entry in config["name"]}
    assert not named & {"PredictStream", "WatchServingStatus"}
    codes = [config["retryPolicy"]["retryableStatusCodes"] for config in service_config()["methodConfig"]]
    assert all(code == ["UNAVAILABLE", "CANCELLED"] for code in codes)


def test_while_the_server_is_down_a_call_fails_and_when_it_is_back_the_client_finds_it(server):
    with SignalClient(server.target) as client:
        assert until_it_answers(client).score == 1.0
        for _ in range(2):
            server.stop()
            for _ in range(3):
                with pytest.raises((Unavailable, DeadlineExceeded)):
                    client.predict("X", "15m", ROW)
            server.start()
            assert until_it_answers(client).score == 1.0


def test_a_client_may_be_made_before_its_server_runs(server):
    server.stop()
    with SignalClient(server.target) as client:
        with pytest.raises((Unavailable, DeadlineExceeded)):
            client.predict("X", "15m", ROW)
        with pytest.raises(DeadlineExceeded, match="no server at"):
            client.wait_ready(deadline_ms=50)
        server.start()
        client.wait_ready(deadline_ms=LONG)
        assert client.predict("X", "15m", ROW, deadline_ms=LONG).score == 1.0


async def test_the_async_client_reconnects_too(server):
    async with AsyncSignalClient(server.target) as client:
        await client.wait_ready()
        server.stop()
        with pytest.raises((Unavailable, DeadlineExceeded)):
            await client.predict("X", "15m", ROW)
        with pytest.raises(DeadlineExceeded, match="no server at"):
            await client.wait_ready(deadline_ms=50)
        server.start()
        await client.wait_ready(deadline_ms=LONG)
        assert (await client.predict("X", "15m", ROW, deadline_ms=LONG)).score == 1.0


def test_calls_go_round_over_all_addresses_and_past_a_dead_one(start_server):
    first, second = start_server("first"), start_server("second")
    with SignalClient(f"ipv4:{first.address},{second.address}", deadline_ms=LONG) as client:
        seen: Counter[str] = Counter()
        while len(seen) < 2:  # until both connections stand
            seen[client.predict("X", "15m", ROW).model_id] += 1
        seen = Counter(client.predict("X", "15m", ROW).model_id for _ in range(20))
        assert seen == {"first": 10, "second": 10}
        first.stop()
        assert {client.predict("X", "15m", ROW).model_id for _ in range(20)} == {"second"}


def test_a_host_name_and_dns_are_targets_too(server):
    for target in (f"localhost:{server.port}", f"dns:///localhost:{server.port}"):
        with SignalClient(target, deadline_ms=LONG) as client:
            assert client.predict("X", "15m", ROW).score == 1.0


def test_an_answer_of_megabytes_is_taken(server):
    counts = [300_000, 500_000]  # 6.4 MB, above gRPC's own limit of 4 MiB
    batch = [PredictionRequest("X", "15m", np.zeros((count, 1)), feature_names=["a"]) for count in counts]
    with SignalClient(server.target, deadline_ms=LONG) as client:
        items = client.predict_batch(batch)
    assert [len(item.result().scores) for item in items] == counts


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        [
            openssl,
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-keyout",
            str(key),
            "-out",
            str(cert),
            "-days",
            "2",
            "-subj",
            "/CN=signals.test",
            "-addext",
            "subjectAltName=DNS:signals.test,DNS:localhost",
        ],
        check=True,
        capture_output=True,
    )
    return key, cert


def test_a_server_with_tls_is_reached_with_its_authority_and_a_token(start_server, certificate):
    key, cert = certificate
    server = start_server("tls", grpc.ssl_server_credentials([(key.read_bytes(), cert.read_bytes())]))
    with SignalClient(f"localhost:{server.port}", "secret", cert, LONG) as client:
        assert client.predict("X", "15m", ROW).model_id == "tls"
    assert server.prediction.metadata[0]["authorization"] == "Bearer secret"
    with SignalClient(
        server.target, tls=Tls(ca=cert, server_name="signals.test"), deadline_ms=LONG
    ) as client:
        assert client.predict("X", "15m", ROW).model_id == "tls"
    for wrong in (Tls(ca=cert, server_name="other.test"), None):
        with SignalClient(server.target, tls=wrong) as client, pytest.raises((Unavailable, DeadlineExceeded)):
            client.predict("X", "15m", ROW)


async def test_the_async_client_speaks_tls_too(start_server, certificate):
    key, cert = certificate
    pair = [(key.read_bytes(), cert.read_bytes())]
    server = start_server("tls", grpc.ssl_server_credentials(pair, cert.read_bytes(), True))
    own = Tls(ca=cert, certificate=cert, key=key)
    async with AsyncSignalClient(f"localhost:{server.port}", tls=own, deadline_ms=LONG) as client:
        assert (await client.predict("X", "15m", ROW)).model_id == "tls"


def test_bad_settings_are_refused_when_the_client_is_made(tmp_path):
    with pytest.raises(ValueError, match="target is empty"):
        SignalClient("")
    with pytest.raises(FileNotFoundError):
        SignalClient("localhost:1", tls=tmp_path / "missing.pem")
    with pytest.raises(ValueError, match="go together"):
        SignalClient("localhost:1", tls=Tls(certificate=tmp_path / "cert.pem"))


@pytest.mark.parametrize("kind", [SignalClient, AsyncSignalClient])
async def test_no_client_sends_its_token_to_another_machine_in_plaintext(kind):
    with pytest.raises(ValueError, match="without TLS"):
        kind("models.example:50051", token="secret")  # noqa: S106  opens nothing


@pytest.mark.parametrize(
    "target",
    ["models.example", "dns:///models.example", "ipv4:10.0.0.1:50051,10.0.0.2", "[::1]", "ipv6:::1", "a:"],
)
def test_a_target_without_a_port_is_refused_and_says_so(target):
    with pytest.raises(ValueError, match="names no port"):
        SignalClient(target)


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("127.0.0.1:abc", "abc is no port"),
        ("[::1]:abc", "abc is no port"),
        ("a:1,b:-1", "-1 is no port"),
        ("a:", "'a:' names no port; give e.g. 'a:50051'"),
        ("ipv6:::1", r"give e.g. '\[::1\]:50051'"),
        ("http://localhost:50051", "gRPC knows no http://; give host and port alone"),
        ("https://localhost:50051", "tls=True"),
        ("grpc://localhost:50051", "gRPC knows no grpc://"),
    ],
)
def test_a_target_that_is_none_says_what_is_wrong_with_it(target, says):
    with pytest.raises(ValueError, match=says):
        SignalClient(target)


@pytest.mark.parametrize(
    "target",
    ["a:1", "dns:///a:1", "dns://1.2.3.4/a", "ipv6:[::1]:5,[::2]:6", "unix:/tmp/x.sock", "xds:///models"],
)
def test_a_target_with_a_port_or_of_a_scheme_without_ports_is_taken(target):
    SignalClient(target).close()
