"""GET /api/ml/models: filters, order and pages on the server, whatever state the registry is in."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import joblib
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from signalserve.lab.app import lab_of
from signalserve.lab.catalogue import SORTS, Query
from signalserve.registry import ModelMetadata, init_registry, open_registry, register_model
from signalserve.registry.artefact import Artefact
from tests.lab.conftest import OpenLab, lab_settings
from tests.small_models import register_copy, rows, write_run

TABLE = "/api/ml/models"


def ids(answer: dict[str, object]) -> list[str]:
    rows = answer["rows"]
    assert isinstance(rows, list)
    return [row["model_id"] for row in rows]


def test_a_row_says_what_a_model_is_and_whether_it_is_in_production(
    base: Path, tmp_path: Path, open_lab: OpenLab
) -> None:
    found = open_lab(lab_settings(tmp_path)).json(TABLE)
    assert ids(found) == ["eth2", "btc1", "btc0"]
    row = found["rows"][2]
    assert (row["symbol"], row["timeframe"], row["status"]) == ("BTCUSDT", "15m", "production")
    assert row["created_at"] == "2026-01-01T00:00:00Z"
    assert (row["engine"], row["in_production"], row["problems"]) == ("onnx", True, [])
    assert len(row["digest"]) == 64
    # no server answers, so nobody knows; the index has no figures of these models
    assert (row["served"], row["sharpe"], row["cum_return"]) == (None, None, None)
    assert found["registry"]["state"] == "filled"
    assert (found["symbols"], found["timeframes"]) == (["BTCUSDT", "ETH-PERP_X"], ["15m", "1h"])


@pytest.mark.parametrize("hand_edits", ["follow", "hold"])
def test_a_production_by_hand_is_marked_in_the_json_and_on_every_page_that_shows_it(
    base: Path, tmp_path: Path, open_lab: OpenLab, hand_edits: str
) -> None:
    index = base / "registry_index.csv"
    text = index.read_text().replace(",production", ",archived")
    lines = [
        line.replace(",success", ",production") if line[:4] == "btc1" else line for line in text.split("\n")
    ]
    index.write_text("\n".join(lines))
    open_registry(base).record_edits()
    lab = open_lab(lab_settings(tmp_path, promotion={"hand_edits": hand_edits}))
    found = lab.json(TABLE, symbol="BTCUSDT")
    assert {row["model_id"]: row["by_hand"] for row in found["rows"]} == {"btc1": True, "btc0": False}
    standing = "btc1" if hand_edits == "follow" else "btc0"
    assert [row["model_id"] for row in found["rows"] if row["in_production"]] == [standing]
    assert any("btc1 was put into production by hand" in text for text in found["registry"]["warnings"])
    history = lab.json("/api/ml/history", symbol="BTCUSDT", timeframe="15m")
    assert (history["production"], history["models"][1]["by_hand"]) == (standing, True)
    for page in ("/", "/models/btc1", "/models/btc1/promote", "/history/BTCUSDT/15m"):
        assert "by hand, without evidence</span>" in lab.get(page).text, page
    (step,) = lab.json("/api/ml/promote/preview", model_id="btc1")["steps"]
    assert (step["previous"]["model_id"], step["problem"]) == (standing, "")


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"symbol": "BTCUSDT"}, ["btc1", "btc0"]),
        ({"timeframe": "1h"}, ["eth2"]),
        ({"model_type": "xgb"}, ["eth2"]),
        ({"status": "production"}, ["btc0"]),
        ({"status": ["production", "success"], "symbol": "BTCUSDT"}, ["btc1", "btc0"]),
        ({"text": "PERP xgb"}, ["eth2"]),
        ({"text": "perp logreg"}, []),
        ({"sort": "model_id", "order": "asc"}, ["btc0", "btc1", "eth2"]),
        ({"sort": "timeframe", "order": "desc"}, ["eth2", "btc1", "btc0"]),
        ({"sort": "status", "order": "desc"}, ["btc0", "eth2", "btc1"]),
        ({"per_page": 2}, ["eth2", "btc1"]),
        ({"per_page": 2, "page": 2}, ["btc0"]),
        ({"per_page": 2, "page": 99}, ["btc0"]),
    ],
)
def test_filters_order_and_pages(
    base: Path, tmp_path: Path, open_lab: OpenLab, params: dict[str, str], expected: list[str]
) -> None:
    assert ids(open_lab(lab_settings(tmp_path)).json(TABLE, **params)) == expected


def test_every_column_sorts_both_ways_and_what_has_no_value_comes_last(
    base: Path, tmp_path: Path, templates: list[Path]
) -> None:
    for number, sharpe in (("a", 2.0), ("b", -1.0)):
        folder = base / f"m{number}"
        shutil.copytree(base / "btc0", folder)
        meta = ModelMetadata(
            folder.name, "SOL", "4h", "rf", created_at="2025-01-01", metrics={"sharpe": sharpe}
        )
        (folder / "manifest.json").unlink()
        meta.write(folder / "meta.json")
        register_model(replace_features(meta), base)
    catalogue = lab_of(lab_settings(tmp_path)).catalogue

    def order(sort: str, *, descending: bool) -> list[str]:
        query = Query(sort=sort, descending=descending)
        return [row.model_id for row in catalogue.page(query, frozenset({"btc1"})).rows]

    assert order("sharpe", descending=True)[:2] == ["ma", "mb"]
    assert order("sharpe", descending=False)[:2] == ["mb", "ma"]
    assert order("served", descending=True)[0] == "btc1"
    assert order("served", descending=False)[-1] == "btc1"
    for sort in SORTS:
        assert sorted(order(sort, descending=True)) == sorted(order(sort, descending=False)), sort


def replace_features(meta: ModelMetadata) -> ModelMetadata:
    """The same metadata, with the columns that the small models were fitted on."""
    return ModelMetadata(**{**vars(meta), "feature_cols": ["a", "b", "c", "d", "e"]})


def test_the_files_of_the_pages_rows_alone_are_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "ml_models"
    base.mkdir()
    lines = ["model_id,symbol,timeframe,model_type,created_at,path,cum_return,sharpe,status"]
    lines += [f"m{n:04},S{n % 50},15m,rf,2026-01-01T00:00:00Z,,0.1,{n},success" for n in range(5_000)]
    (base / "registry_index.csv").write_text("\n".join(lines) + "\n")
    opened: list[str] = []
    describe = Artefact.describe

    def counted(self: Artefact, **more: object) -> object:
        opened.append(self.entry.model_id)
        return describe(self, **more)  # type: ignore[arg-type]  # handed on as it came

    monkeypatch.setattr(Artefact, "describe", counted)
    catalogue = lab_of(lab_settings(tmp_path)).catalogue
    for sort in ("sharpe", "engine", "served"):
        opened.clear()
        page = catalogue.page(Query(sort=sort, per_page=50), frozenset())
        assert (page.total, len(page.rows), page.pages) == (5_000, 50, 100)
        assert opened == [row.model_id for row in page.rows]


def test_a_registry_that_is_not_there_is_said_and_not_made(tmp_path: Path, open_lab: OpenLab) -> None:
    lab = open_lab(lab_settings(tmp_path))
    found = lab.json(TABLE)
    assert (found["registry"]["state"], found["rows"], found["total"]) == ("missing", [], 0)
    assert "signalserve train" in found["registry"]["text"]
    assert lab.json("/api/ml/events")["chain"]["state"] == "no_log"
    assert lab.json("/api/ml/keys") == {"keys": []}
    assert lab.json("/api/ml/live") == {"engines": []}
    assert list(tmp_path.iterdir()) == []


def test_an_empty_registry_says_what_to_do_next(tmp_path: Path, open_lab: OpenLab) -> None:
    init_registry(tmp_path / "ml_models")
    found = open_lab(lab_settings(tmp_path)).json(TABLE)
    assert (found["registry"]["state"], found["rows"]) == ("empty", [])
    assert [item.name for item in (tmp_path / "ml_models").iterdir()] == ["registry_events.jsonl"]


def test_what_is_broken_shows_as_broken_and_hides_nothing(
    base: Path, tmp_path: Path, open_lab: OpenLab
) -> None:
    shutil.rmtree(base / "btc1")
    (base / "eth2" / "manifest.json").write_text("{")
    index = base / "registry_index.csv"
    index.write_text(index.read_text() + "odd,BTCUSDT,15m,rf,never,,x,y,no_status\n")
    found = open_lab(lab_settings(tmp_path)).json(TABLE)
    problems = {row["model_id"]: row["problems"] for row in found["rows"]}
    assert problems["btc0"] == []
    assert "btc1" in problems["btc1"][0]
    assert "manifest.json" in problems["eth2"][0]
    # the engine that the log has is still there to sort by
    assert {row["engine"] for row in found["rows"]} == {"onnx"}
    assert any("line 5" in warning for warning in found["registry"]["warnings"])


def test_legacy_rows_with_nan_and_an_unknown_age_are_plain_json(tmp_path: Path, open_lab: OpenLab) -> None:
    base = tmp_path / "ml_models"
    (base / "old").mkdir(parents=True)
    ModelMetadata("old", "BTC-PERP", "15m", "rf", metrics={"sharpe": math.nan}).write(
        base / "old" / "meta.json"
    )
    (base / "registry_index.csv").write_bytes(
        b"model_id,symbol,timeframe,model_type,created_at,path,cum_return,sharpe\n"
        b"old,BTC-PERP,15m,r\xff,whenever,,nan,inf\n"
    )
    lab = open_lab(lab_settings(tmp_path))
    row = lab.json(TABLE)["rows"][0]
    assert (row["sharpe"], row["cum_return"], row["created_at"]) == (None, None, None)
    assert (row["engine"], row["status"], row["metadata"]) == ("legacy", "success", "unknown")
    detail = lab.get(f"{TABLE}/old").text
    assert "NaN" not in detail and "Infinity" not in detail


def test_a_model_that_will_not_be_served_says_why(tmp_path: Path, open_lab: OpenLab) -> None:
    base = tmp_path / "ml_models"
    meta = write_run(base / "three", "BTCUSDT")
    three = LogisticRegression().fit(rows(), np.arange(len(rows())) % 3)
    joblib.dump(three, base / "three" / "model.joblib")
    register_model(meta, base)
    row = open_lab(lab_settings(tmp_path)).json(TABLE)["rows"][0]
    assert (row["engine"], row["problems"]) == ("legacy", [])
    assert row["engine_reason"] == "LogisticRegression knows 3 classes; a score needs exactly two"


def test_a_registry_that_is_written_meanwhile_is_read_as_it_stands(
    base: Path, tmp_path: Path, templates: list[Path], open_lab: OpenLab
) -> None:
    lab = open_lab(lab_settings(tmp_path))
    before = lab.json(TABLE)["registry"]["revision"]
    register_copy(templates[1], base, "btc9", created_at="2026-02-01T00:00:00+00:00")
    found = lab.json(TABLE)
    assert (ids(found)[0], found["registry"]["revision"]) == ("btc9", before + 1)
    open_registry(base).archive(["btc9"])
    assert lab.json(TABLE)["rows"][0]["status"] == "archived"


def test_a_log_that_is_no_whole_chain_is_a_503_with_its_reason(
    base: Path, tmp_path: Path, open_lab: OpenLab
) -> None:
    log = base / "registry_events.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"revision":2', b'"revision":3'))
    lab = open_lab(lab_settings(tmp_path))
    answer = lab.get(TABLE)
    assert (answer.status_code, answer.json()["reason"]) == (503, "LOG_CORRUPT")
    events = lab.json("/api/ml/events")
    assert (events["chain"]["state"], events["rows"]) == ("broken", [])


def test_a_refit_names_the_model_whose_evidence_it_carries_in_the_json_and_on_its_pages(
    base: Path, tmp_path: Path, templates: list[Path], open_lab: OpenLab
) -> None:
    digest = open_registry(base).state.digests["btc1"]
    extra = {"refit_of": {"model_id": "btc1", "digest": digest}}
    register_copy(templates[2], base, "refit", created_at="2026-01-04T00:00:00+00:00", extra=extra)
    lab = open_lab(lab_settings(tmp_path))
    found = lab.json(TABLE, symbol="BTCUSDT")
    assert {row["model_id"]: row["refit_of"] for row in found["rows"]} == {
        "refit": "btc1",
        "btc1": "",
        "btc0": "",
    }
    assert "refitted</span>" in lab.get("/").text
    page = lab.get("/models/refit").text
    assert "Refitted on all bars" in page
    assert 'href="/models/btc1"' in page.split("Refitted on all bars")[1].split("</div>")[0]
    assert "signalserve evaluate btc1" in page
    assert "Refitted on all bars" not in lab.get("/models/btc1").text
