"""The OpenAPI document tells the truth: of every path, status, type and example."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks

from tests.lab.conftest import LabProcess, Workshop
from tests.server.wire.conftest import Server

DOCUMENT = "/api/openapi.json"
CHECKS = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]


@pytest.fixture(scope="module")
def lab(
    workshop: Workshop, tmp_path_factory: pytest.TempPathFactory, loop: asyncio.AbstractEventLoop
) -> Iterator[LabProcess]:
    copy = workshop.copied_to(tmp_path_factory.mktemp("openapi") / "copy")
    options = {"port": 0, "poll_ms": 20, "drain_seconds": 3600.0}
    server = Server(copy.settings(server=options), loop)
    server.until(lambda status: status.ready)
    lab = LabProcess(copy.settings(client={"target": server.target}))
    yield lab
    lab.close()
    server.close()


@pytest.fixture(scope="module")
def document(lab: LabProcess) -> dict[str, Any]:
    found: dict[str, Any] = lab.json(DOCUMENT)
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def test_every_parameter_is_described_and_every_answer_has_an_example_that_fits(
    document: dict[str, Any],
) -> None:
    found = list(operations(document))
    assert len(found) >= 20
    for method, path, operation in found:
        for parameter in operation.get("parameters", ()):
            assert parameter.get("description") or parameter["schema"].get("description"), (path, parameter)
        (kind, content), *others = operation["responses"]["200"]["content"].items()
        assert not others, path
        assert "example" in content, (method, path)
        if kind == "application/json":
            schema = content["schema"] | {"components": document["components"]}
            jsonschema_rs.validate(schema, content["example"])
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                assert list(response["content"]) == ["application/problem+json"], (path, status)


def test_the_document_is_served_and_names_no_other_host(document: dict[str, Any]) -> None:
    assert set(document["components"]["schemas"]) >= {"Problem", "Violation", "Page", "Row"}
    assert "HTTPValidationError" not in document["components"]["schemas"]
    assert "servers" not in document


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["good", "bad"])
def test_no_request_finds_a_500_or_an_answer_that_is_not_documented(
    lab: LabProcess, mode: GenerationMode
) -> None:
    schema = schemathesis.openapi.from_url(lab.address + DOCUMENT)
    found = [result.ok() for result in schema.get_all_operations()]
    done = 0
    for operation in found:
        if operation.path == "/api/ml/stream":  # it ends when its listener goes, and not before
            continue

        @settings(
            max_examples=25,
            derandomize=True,
            deadline=None,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def asked(case: schemathesis.Case) -> None:
            case.call_and_validate(headers={"Authorization": "Bearer t0ken"}, checks=CHECKS)

        try:
            asked()
        except Unsatisfiable:  # nothing of a route without parameters can be wrong
            assert mode is GenerationMode.NEGATIVE
        else:
            done += 1
    assert done >= 15


def test_every_good_answer_fits_its_schema(
    lab: LabProcess, document: dict[str, Any], workshop: Workshop
) -> None:
    """What random requests seldom hit: each GET with what is really there."""
    (backtest,) = (path.name for path in Path(workshop.folder / "backtests").glob(f"{workshop.challenger}_*"))
    names = {
        "model_id": workshop.challenger,
        "symbol": "SYNTH",
        "timeframe": "15m",
        "name": backtest,
        "revision": "1",
    }
    queries: dict[str, dict[str, Any]] = {
        "/api/ml/compare": {"model_id": [workshop.challenger, workshop.champion]},
        "/api/ml/history": {"symbol": "SYNTH", "timeframe": "15m"},
        "/api/ml/promote/preview": {"model_id": workshop.challenger},
        "/api/ml/archive/preview": {"model_id": workshop.challenger},
        "/api/ml/rollback/preview": {"key": "SYNTH/15m"},
    }
    for method, path, operation in operations(document):
        if method != "get" or path in ("/api/ml/access", "/api/ml/stream", "/api/ml/live/{name}"):
            continue
        found = lab.json(path.format(**names), **queries.get(path, {}))
        schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
        jsonschema_rs.validate(schema | {"components": document["components"]}, found)
