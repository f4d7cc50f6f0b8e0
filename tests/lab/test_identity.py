"""Who may do what over HTTP: every route against every role and none, wrong and ended tokens, and the actor."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter

from signalserve.access.errors import AccessSetupError
from signalserve.access.identity import Role
from signalserve.access.table import TABLE, Row
from signalserve.access.token_file import TokenFile
from signalserve.config.settings import Settings
from signalserve.lab.app import create_app, run_lab
from signalserve.lab.rows import check_rows
from signalserve.registry import Promotion
from tests.authority import Authority
from tests.lab.conftest import LabProcess, OpenLab, lab_settings
from tests.registries import registry_at
from tests.server.wire.conftest import Server
from tests.small_models import register_copy

# a login is refused for its token, whatever the table says
ROWS = [row for row in TABLE if not row.operation.startswith("/") and row.operation != "POST /login"]
VALUES = {
    "digest": "x",
    "release": "x",
    "model_id": "one",
    "symbol:path": "BTCUSDT",
    "timeframe": "15m",
    "name": "x",
    "revision": "1",
    "path": "x",
}


@pytest.fixture
def base(tmp_path: Path, templates: list[Path]) -> Path:
    base = tmp_path / "ml_models"
    for name in ("one", "two"):
        register_copy(templates[0], base, name)
    registry_at(base).promote([Promotion("one")])
    return base


@pytest.fixture
def file(tmp_path: Path) -> TokenFile:
    return TokenFile(tmp_path / "tokens.json")


@pytest.fixture
def tokens(file: TokenFile) -> dict[Role, str]:
    return {role: file.create(f"the-{role}", [role])[1] for role in Role}


def secured(tmp_path: Path, base: Path, file: TokenFile, **sections: dict[str, Any]) -> Settings:
    """Settings of a lab that knows tokens."""
    own = {"lab": {"session_key": tmp_path / "session.key"}, "security": {"token_file": file.path}}
    for section, changes in sections.items():
        own[section] = own.get(section, {}) | changes
    return lab_settings(tmp_path, base, **own)


def exposed(tmp_path: Path) -> dict[str, Any]:
    """What a lab needs that other machines reach."""
    certificate, key = Authority().sign("CN=lab").write(tmp_path / "secrets", "lab")
    return {"lab": {"host": "0.0.0.0"}, "security": {"tls_cert": certificate, "tls_key": key}}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def status_of(lab: LabProcess, row: Row, token: str | None) -> int:
    """What an operation answers; a change is sent without a body, so that it changes nothing."""
    method, _, path = row.operation.partition(" ")
    path = re.sub(r"\{([^}]+)\}", lambda found: VALUES[found[1]], path)
    with lab.http.stream(method, path, headers=bearer(token) if token else {}) as answer:
        return answer.status_code


def test_every_route_answers_the_roles_of_its_row_and_refuses_all_others(
    tmp_path: Path, base: Path, file: TokenFile, tokens: dict[Role, str], open_lab: OpenLab
) -> None:
    lab = open_lab(secured(tmp_path, base, file, **exposed(tmp_path)))
    for row in ROWS:
        for role, token in tokens.items():
            status = status_of(lab, row, token)
            assert status != 401, (row.operation, role)
            assert (status == 403) == (row.roles is not None and role not in row.roles), (row, role, status)


def test_nobody_gets_more_than_what_is_anybodys(
    tmp_path: Path, base: Path, file: TokenFile, tokens: dict[Role, str], open_lab: OpenLab, monkeypatch: Any
) -> None:
    monkeypatch.setattr("signalserve.access.attempts._LONGEST_PAUSE", 0.0)
    lab = open_lab(secured(tmp_path, base, file, **exposed(tmp_path)))
    for row in ROWS:
        assert (status_of(lab, row, None) == 401) == (row.roles is not None), row.operation
    loopback = open_lab(secured(tmp_path, base, file))
    for row in ROWS:
        may = row.roles is None or Role.READ in row.roles
        assert (status_of(loopback, row, None) == 401) != may, row.operation


def test_visitors_read_on_loopback_alone_and_not_through_a_proxys_name(
    tmp_path: Path, base: Path, file: TokenFile, tokens: dict[Role, str], open_lab: OpenLab
) -> None:
    behind = secured(tmp_path, base, file, lab={"allowed_hosts": ("lab.desk",)})
    assert open_lab(behind).get("/api/ml/models", headers={"Host": "lab.desk"}).status_code == 401
    assert open_lab(secured(tmp_path, base, file)).get("/api/ml/models").status_code == 200


@pytest.mark.parametrize("shown", ["wrong", "sst_00000000_" + "A" * 43, "é", "a b"])
def test_a_wrong_token_is_refused_even_where_a_visitor_may_read(
    tmp_path: Path, base: Path, file: TokenFile, tokens: dict[Role, str], open_lab: OpenLab, shown: str
) -> None:
    lab = open_lab(secured(tmp_path, base, file))
    answer = lab.get("/api/ml/models", headers={"Authorization": f"Bearer {shown}".encode()})
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["reason"] == "TOKEN_INVALID"
    assert shown not in answer.json()["detail"]


def test_a_revoked_token_ends_its_stream_of_changes(
    tmp_path: Path, base: Path, file: TokenFile, tokens: dict[Role, str], open_lab: OpenLab
) -> None:
    settings = secured(tmp_path, base, file, server={"poll_ms": 20}, **exposed(tmp_path))
    lab = open_lab(settings)
    with lab.http.stream("GET", "/api/ml/stream", headers=bearer(tokens[Role.READ])) as answer:
        lines = answer.iter_lines()
        assert next(lines).startswith("retry")
        file.revoke("the-read")
        for _ in lines:  # until the lab ends it
            pass
    assert lab.get("/api/ml/models", headers=bearer(tokens[Role.READ])).json()["reason"] == "TOKEN_REVOKED"


def test_who_may_not_read_by_their_role_listens_as_a_visitor_does(
    tmp_path: Path, base: Path, file: TokenFile, tokens: dict[Role, str], open_lab: OpenLab
) -> None:
    lab = open_lab(secured(tmp_path, base, file))
    with lab.http.stream("GET", "/api/ml/stream", headers=bearer(tokens[Role.PREDICT])) as answer:
        lines = answer.iter_lines()
        assert next(lines).startswith("retry")
        registry_at(base).archive(["two"], reason="r")
        assert any(line == "event: registry" for line in lines)  # it goes on, and says so


def test_a_change_through_the_lab_has_the_tokens_name_in_the_log(
    tmp_path: Path,
    base: Path,
    file: TokenFile,
    tokens: dict[Role, str],
    open_lab: OpenLab,
    serve: Callable[[Settings], Server],
) -> None:
    settings = secured(tmp_path, base, file)
    own = tmp_path / "own.token"
    own.write_text(tokens[Role.READ])
    readable = settings.model_copy(update={"client": settings.client.model_copy(update={"token_file": own})})
    server = serve(readable)
    client = readable.client.model_copy(update={"target": server.target})
    lab = open_lab(readable.model_copy(update={"client": client}))
    # a visitor sees what is served, by the lab's own token, and changes nothing by it
    assert lab.json("/api/ml/server")["state"] == "serving"
    body = {"models": [{"model_id": "two"}], "reason": "r"}
    assert lab.http.post("/api/ml/promote", json=body).status_code == 401
    assert lab.http.post("/api/ml/promote", json=body, headers=bearer(tokens[Role.READ])).status_code == 403
    answer = lab.http.post("/api/ml/promote", json=body, headers=bearer(tokens[Role.OPS]))
    assert answer.status_code == 200, answer.text
    event = registry_at(base).events()[-1]
    assert (event.actor, event.via, event.action) == ("the-ops", "lab", "promote")


def test_the_access_answer_is_the_admins_and_holds_nothing_secret(
    tmp_path: Path, base: Path, file: TokenFile, tokens: dict[Role, str], open_lab: OpenLab
) -> None:
    lab = open_lab(secured(tmp_path, base, file))
    answer = lab.get("/api/ml/access", headers=bearer(tokens[Role.ADMIN]))
    known = answer.json()["credentials"]
    assert [(item["name"], item["state"]) for item in known] == [(f"the-{role}", "active") for role in Role]
    stored = json.loads(file.path.read_text())["tokens"]
    for entry in stored:
        assert entry["hash"] not in answer.text
        assert entry["salt"] not in answer.text


def test_another_address_without_tls_and_tokens_is_refused(
    tmp_path: Path, base: Path, file: TokenFile
) -> None:
    settings = lab_settings(tmp_path, base, lab={"host": "0.0.0.0", "port": 0})
    for start in (create_app, run_lab):
        with pytest.raises(AccessSetupError, match=r"security\.tls_cert.*security\.token_file"):
            start(settings)


def test_a_route_without_a_row_is_not_served() -> None:
    router = APIRouter()
    router.add_api_route("/api/ml/new", lambda: None, methods=["GET"])
    with pytest.raises(KeyError, match="GET /api/ml/new"):
        check_rows(router.routes)
