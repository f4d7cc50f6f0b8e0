"""Log lines of several workers can be told apart."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.server.wire.conftest import Registry, ServerProcess


@pytest.mark.parametrize("workers", [1, 2])
def test_each_line_of_one_of_several_workers_says_which(
    serve_process: Callable[..., ServerProcess], registry: Registry, workers: int
) -> None:
    process = serve_process(registry.base, "--workers", str(workers))
    assert process.terminate() == 0
    lines = [json.loads(line) for line in process.log.read_text().splitlines()]
    # from the loop and from the loaders' threads
    for event in ("server.listening", "model.loaded", "server.stopped"):
        named = {line.get("worker") for line in lines if line["event"] == event}
        assert named == (set(range(workers)) if workers > 1 else {None})
