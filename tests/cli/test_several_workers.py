"""What the command line says of a server with several workers, of which one is not as far as the others."""

import pytest

from signalserve.cli import exits
from signalserve.v1 import registry_pb2
from tests.cli.test_commands import signalserve
from tests.client.conftest import FakeServer

CHANGES = [
    ("promote", "new"),
    ("rollback", "X/15m", "--reason", "why"),
    ("archive", "new", "--reason", "why"),
]


@pytest.fixture
def server():
    running = FakeServer("fake")
    running.registry.lagging = [
        registry_pb2.LaggingWorker(worker=1, process_id=77, served_revision=8, why="it serves revision 8")
    ]
    yield running
    running.stop()


@pytest.mark.parametrize("change", CHANGES)
def test_workers_that_lag_are_named_with_how_to_wait_for_them_again(server, change):
    server.registry.served_revision = 9
    told = signalserve(*change, "--target", server.target, code=exits.FAILED)
    assert "worker 1 (process 77) does not serve it yet: it serves revision 8" in told
    assert "served by the worker that answered; those above will follow" in told
    assert "could not load" not in told
    (asked,) = server.registry.requests
    assert f"--request-id {asked.request_id} changes nothing and waits" in told
    server.registry.lagging = []
    signalserve(*change, "--request-id", asked.request_id, "--target", server.target)
    assert {request.request_id for request in server.registry.requests} == {asked.request_id}


def test_a_worker_that_answers_and_is_behind_itself_says_where_its_trouble_stands(server):
    told = signalserve("promote", "new", "--target", server.target, code=exits.FAILED)
    assert "`signalserve status` shows what it could not load" in told
    assert "will follow" not in told


def test_the_status_says_whose_it_is(server):
    server.prediction.worker = 2
    printed = signalserve("status", "--target", server.target)
    assert "worker 2 of this port, process 11" in printed
