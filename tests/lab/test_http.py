"""What holds for every answer: headers, hosts, ETags, problems, and no text of a fault."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from signalserve.lab.guard import CONTENT_SECURITY_POLICY, allowed_hosts
from signalserve.registry import Promotion
from tests.lab.conftest import OpenLab, lab_settings
from tests.registries import registry_at

MODELS = "/api/ml/models"
PROBLEM = "application/problem+json"


def test_every_answer_carries_the_security_headers(base: Path, tmp_path: Path, open_lab: OpenLab) -> None:
    lab = open_lab(lab_settings(tmp_path))
    for path in (MODELS, "/api/ml/nothing", f"{MODELS}?page=0", "/api/openapi.json", "/docs", "/redoc"):
        answer = lab.get(path)
        assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY, path
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
    assert "unsafe-eval" not in CONTENT_SECURITY_POLICY
    # FastAPI's own pages load their scripts from elsewhere
    assert [lab.get(path).status_code for path in ("/docs", "/redoc")] == [404, 404]


def test_an_answer_that_a_client_has_is_304_until_the_registry_changes(
    base: Path, tmp_path: Path, open_lab: OpenLab
) -> None:
    lab = open_lab(lab_settings(tmp_path))
    paths = [MODELS, f"{MODELS}/btc0", f"{MODELS}/btc0/importance", f"{MODELS}/BTCUSDT/15m", "/api/ml/events"]
    tags = {path: lab.get(path).headers["etag"] for path in paths}
    for path, tag in tags.items():
        assert re.fullmatch(r'"r4-[0-9a-f]{20}"', tag)
        for header in (tag, f'W/{tag}, "other"', "*"):
            again = lab.get(path, headers={"If-None-Match": header})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
            assert again.headers["cache-control"] == "private, no-cache"
        assert lab.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
    registry_at(base).promote([Promotion("btc1")])
    for path, tag in tags.items():
        if path.endswith("importance"):
            continue
        changed = lab.get(path, headers={"If-None-Match": tag})
        assert changed.status_code == 200, path
        assert changed.headers["etag"].startswith('"r5-')


def test_an_etag_follows_the_files_that_the_answer_reads_too(
    base: Path, tmp_path: Path, open_lab: OpenLab
) -> None:
    lab = open_lab(lab_settings(tmp_path))
    tag = lab.get(f"{MODELS}/BTCUSDT/15m").headers["etag"]
    (base / "btc1" / "model.joblib").unlink()  # no revision says so
    changed = lab.get(f"{MODELS}/BTCUSDT/15m", headers={"If-None-Match": tag})
    assert (changed.status_code, [row["model_id"] for row in changed.json()["models"]]) == (200, ["btc0"])


def test_two_workers_give_the_same_etag(base: Path, tmp_path: Path, open_lab: OpenLab) -> None:
    settings = lab_settings(tmp_path)
    first, second = open_lab(settings), open_lab(settings)
    for path in (MODELS, f"{MODELS}/btc0", "/api/ml/events", "/api/ml/history?symbol=BTCUSDT&timeframe=15m"):
        assert first.get(path).headers["etag"] == second.get(path).headers["etag"]


@pytest.mark.parametrize(
    ("method", "path", "status", "reason"),
    [
        ("GET", "/nowhere", 404, "NOT_FOUND"),
        ("GET", "/api/ml/nothing", 404, "NOT_FOUND"),
        ("GET", f"{MODELS}/", 404, "NOT_FOUND"),
        ("DELETE", MODELS, 405, "METHOD_NOT_ALLOWED"),
        ("GET", f"{MODELS}?page=0", 422, "INVALID_REQUEST"),
        ("GET", f"{MODELS}?sort=beauty", 422, "INVALID_REQUEST"),
        ("GET", f"{MODELS}?status=lovely", 422, "INVALID_REQUEST"),
        ("GET", "/api/ml/events/x", 422, "INVALID_REQUEST"),
        ("GET", f"{MODELS}/nobody", 404, "UNKNOWN_MODEL"),
        ("GET", "/api/ml/rollback/preview?key=nokey", 400, "INVALID_ARGUMENT"),
    ],
)
def test_every_error_is_a_problem(
    base: Path, tmp_path: Path, open_lab: OpenLab, method: str, path: str, status: int, reason: str
) -> None:
    answer = open_lab(lab_settings(tmp_path)).http.request(method, path)
    found = answer.json()
    assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM)
    assert (found["status"], found["reason"], found["instance"]) == (status, reason, path.partition("?")[0])
    assert found["type"] == f"urn:signalserve:{reason.lower().replace('_', '-')}"
    assert found["title"] and found["detail"]
    if status == 422:
        assert all(item["field"] and item["description"] for item in found["violations"])


def test_a_fault_is_a_500_whose_text_stands_in_the_log_alone(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_lab: OpenLab
) -> None:
    lab = open_lab(lab_settings(tmp_path))

    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("the secret of the cellar")

    monkeypatch.setattr(lab.app.state.lab.catalogue, "page", fails)
    with capture_logs() as logs:
        answer = lab.get(MODELS)
    found = answer.json()
    assert (answer.status_code, answer.headers["content-type"]) == (500, PROBLEM)
    assert "cellar" not in answer.text
    incident = found["metadata"]["incident"]
    assert incident in found["detail"]
    assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    (line,) = [line for line in logs if line["event"] == "lab.internal_error"]
    assert (line["incident"], str(line["exc_info"])) == (incident, "the secret of the cellar")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8080", 200),
        ("127.0.0.1", 200),
        ("[::1]:8080", 200),
        ("LOCALHOST", 200),
        ("evil.example", 400),
        ("127.0.0.1.evil.example:8080", 400),
        ("localhost.evil.example", 400),
    ],
)
def test_on_loopback_only_its_own_names_are_answered_to(
    base: Path, tmp_path: Path, open_lab: OpenLab, host: str, status: int
) -> None:
    answer = open_lab(lab_settings(tmp_path)).get(MODELS, headers={"Host": host})
    assert answer.status_code == status
    if status == 400:
        assert answer.json()["reason"] == "UNKNOWN_HOST"


def test_the_names_can_be_stated() -> None:
    assert allowed_hosts("127.0.0.1", ()) == {"localhost", "127.0.0.1", "[::1]"}
    assert allowed_hosts("0.0.0.0", ()) is None
    assert allowed_hosts("0.0.0.0", ("Lab.example",)) == {"lab.example"}
    assert allowed_hosts("127.0.0.1", ("*",)) is None


def test_a_body_that_is_too_long_is_refused(base: Path, tmp_path: Path, open_lab: OpenLab) -> None:
    lab = open_lab(lab_settings(tmp_path))
    answer = lab.http.post(
        "/api/ml/archive",
        content=b'{"model_ids": ["' + b"a" * 2_000_000 + b'"]}',
        headers={"Authorization": "Bearer t", "Content-Type": "application/json"},
    )
    assert (answer.status_code, answer.headers["content-type"]) == (413, PROBLEM)
