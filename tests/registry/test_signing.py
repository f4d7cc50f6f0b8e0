"""Events are signed with a key that who writes the folder may not have, and what is not is named."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from signalserve.cli import exits
from signalserve.common.files import sha256_hex
from signalserve.registry import Promotion, register_model, signer_of, verify_log
from signalserve.registry.errors import InvalidArgumentError
from signalserve.registry.events import GENESIS, EventLog, canonical
from signalserve.registry.folder_store import FolderStore
from signalserve.registry.store import Origin
from tests.cli.test_commands import signalserve
from tests.registries import registry_at
from tests.small_models import register_copy, sealed_template, write_run

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "registry.md").read_text(encoding="utf-8")
Change = Callable[[dict[str, Any]], dict[str, Any]]


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A key as docs/registry.md makes it; `signing.pub` lies beside it."""
    (commands,) = re.findall(r"^```\n(openssl genpkey.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)
    try:
        subprocess.run(["/bin/sh", "-e", "-c", commands], cwd=tmp_path, check=True, capture_output=True)
    except subprocess.CalledProcessError as error:
        if error.returncode == 127:
            pytest.skip("openssl is not installed")
        raise
    return tmp_path / "signing.pem"


@pytest.fixture
def base(tmp_path: Path, key: Path) -> Path:
    """Four models that were registered without the key, and two of them removed with it by the command line."""
    base, template = tmp_path / "registry", sealed_template(tmp_path / "template")
    for name in ("one", "two", "lost", "gone"):
        register_copy(template, base, name)
    registry_at(base).promote([Promotion("one")])
    for name in ("lost", "gone"):
        (base / name / "model.joblib").unlink()
    (tmp_path / "system.yml").write_text(f"registry: {{signing_key: {key}}}\n")
    signalserve("registry", "clean", "--registry", str(base), "--config", str(tmp_path / "system.yml"))
    return base


def test_an_event_is_signed_by_a_command_that_has_the_key_and_one_without_is_named(
    base: Path, key: Path
) -> None:
    at = ("--registry", str(base), "--key", str(key.with_name("signing.pub")))
    assert "signed: 2 of 7 events" in signalserve("registry", "verify-log", *at)
    log = base / "registry_events.jsonl"
    log.write_bytes(log.read_bytes().replace(b"\n", b"\n\n", 1))  # as an editor may leave it
    found = json.loads(signalserve("registry", "verify-log", "--json", *at))
    assert (found["signed"], found["events"]) == (2, 7)
    assert "signed from revision 6 on, which proves those before it" in found["notes"]
    index = base / "registry_index.csv"
    index.write_text(index.read_text().replace(",success", ",archived"))
    with FolderStore(base).transaction(Origin("unknown", "python")):
        pass  # another process, which has no key, records the edit
    told = signalserve("registry", "verify-log", *at, code=exits.FAILED)
    assert "revision 8, external_edit by unknown via python: it is not signed" in told


def rewritten(base: Path, change: Change) -> None:
    """The whole log with its lines changed and hashed anew, and an index that fits."""
    log = base / "registry_events.jsonl"
    lines, before = [], GENESIS
    for line in log.read_bytes().splitlines():
        values = change(json.loads(line)) | {"prev_hash": before}
        values.pop("hash")
        before = sha256_hex(canonical(values))
        lines.append(canonical(values | {"hash": before}) + b"\n")
    log.write_bytes(b"".join(lines))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda values: values | {"actor": "bob"}, "no event is signed with the key"),
        (
            lambda values: {name: value for name, value in values.items() if name != "signature"},
            "no event is signed with the key",
        ),
        (
            lambda values: values | ({"actor": "bob"} if values["revision"] == 7 else {}),
            "revision 7, clean by bob via cli: its signature is not of the key",
        ),
    ],
    ids=["an actor of all", "the signatures", "an actor of one"],
)
def test_what_was_written_anew_without_the_key_is_told(
    base: Path, key: Path, change: Change, why: str
) -> None:
    keys = [key.with_name("signing.pub")]
    assert verify_log(base, keys=keys).ok
    rewritten(base, change)
    assert verify_log(base).ok
    assert verify_log(base, keys=keys).problems == (why,)
    (base / "registry_events.jsonl").unlink()
    assert "no event is signed with the key" in verify_log(base, keys=keys).problems


def test_a_later_versions_fields_are_signed_too(base: Path, key: Path) -> None:
    keys = [key.with_name("signing.pub")]
    sign = signer_of(key)
    assert sign is not None

    def by_a_later_version(values: dict[str, Any]) -> dict[str, Any]:
        body = values | {"prev_hash": hashes[-1], "weather": "fine"}
        body = {name: value for name, value in body.items() if name not in ("hash", "signature")}
        body["signature"] = sign(canonical(body))
        hashes.append(sha256_hex(canonical(body)))
        return body | {"hash": ""}

    hashes = [GENESIS]
    rewritten(base, by_a_later_version)
    report = verify_log(base, keys=keys)
    assert (report.ok, report.signed) == (True, 7)
    (last,) = EventLog(base / "registry_events.jsonl").read_new().events[-1:]
    assert last.hash == hashes[-1]


def test_research_code_signs_what_it_registers(tmp_path: Path, key: Path) -> None:
    base = tmp_path / "registry"
    meta = write_run(base / "one", "BTCUSDT")
    register_model(meta, base, signer=signer_of(key))
    assert verify_log(base, keys=[key.with_name("signing.pub")]).signed == 1


def test_a_key_that_can_not_be_used_is_one_clear_line(base: Path, key: Path, tmp_path: Path) -> None:
    at = ("--registry", str(base), "--config", str(tmp_path / "system.yml"))
    key.chmod(0o640)
    told = signalserve("registry", "clean", *at, code=exits.USAGE)
    assert f"the key {key} can't be used: others may read it (mode 640); `chmod 600`" in told
    key.chmod(0o600)
    key.write_text("nothing of the kind")
    assert "is no private key" in signalserve("registry", "clean", *at, code=exits.USAGE)
    for looks in (["validate"], ["clean", "--dry-run"], ["repair", "--dry-run"]):
        signalserve("registry", *looks, *at)  # who only looks needs no key
    key.rename(base / "signing.pem")
    (tmp_path / "system.yml").write_text(f"registry: {{signing_key: {base / 'signing.pem'}}}\n")
    assert "it lies in the registry's folder" in signalserve("registry", "clean", *at, code=exits.USAGE)
    (tmp_path / "system.yml").write_text("registry: {signing_key: ~/no-such.pem}\n")
    assert "No such file" in signalserve("registry", "clean", *at, code=exits.USAGE)
    with pytest.raises(InvalidArgumentError, match=re.escape(str(Path.home() / "no-such.pem"))):
        signer_of(Path("~/no-such.pem"))
    verify = ("registry", "verify-log", "--registry", str(base), "--key", str(tmp_path / "system.yml"))
    assert "is no public key" in signalserve(*verify, code=exits.USAGE)
    assert signer_of(None) is None
    with pytest.raises(InvalidArgumentError, match="No such file"):
        signer_of(key)


def test_a_repair_with_the_key_leaves_a_log_that_is_signed_on(base: Path, key: Path) -> None:
    log = base / "registry_events.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"revision":7', b'"revision":8'))
    at, config = ("--registry", str(base)), ("--config", str(key.with_name("system.yml")))
    signalserve("registry", "repair", "--yes", *at, *config)
    told = signalserve("registry", "verify-log", *at, "--key", str(key.with_name("signing.pub")))
    assert "signed: 2 of 7 events" in told
